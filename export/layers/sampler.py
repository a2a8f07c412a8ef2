"""The sampler: DPM-Solver++ of order 2 (midpoint), squared-cosine betas, sample prediction.

Grid and updates equal those of diffusers 0.27.2 `DPMSolverMultistepScheduler` with RDT's settings
(`beta_schedule="squaredcos_cap_v2"`, `prediction_type="sample"`, last sigma 0). For a fixed number
of steps all coefficients are constants.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

TRAIN_STEPS = 1000
_MAX_BETA = 0.999

Array = npt.NDArray[np.float64]


def alphas_cumprod() -> Array:
    """Return the cumulated signal power, float64 [1000].

    Source: Nichol and Dhariwal, arXiv 2102.09672, equation 17.
    """

    def alpha_bar(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    steps = range(TRAIN_STEPS)
    betas = [
        min(1 - alpha_bar((i + 1) / TRAIN_STEPS) / alpha_bar(i / TRAIN_STEPS), _MAX_BETA)
        for i in steps
    ]
    return np.cumprod(1.0 - np.array(betas, dtype=np.float64), dtype=np.float64)


def solver_grid(steps: int) -> tuple[npt.NDArray[np.int64], Array]:
    """Return falling timesteps, int64 [steps], and sigmas, float64 [steps + 1].

    Sigma is the ratio of noise to signal. The last one is 0.
    """
    timesteps = np.linspace(0, TRAIN_STEPS - 1, steps + 1).round()[::-1][:-1].astype(np.int64)
    power = alphas_cumprod()[timesteps]
    return timesteps, np.append(np.sqrt((1 - power) / power), 0.0)


@dataclass(frozen=True, slots=True)
class SolverStep:
    """The coefficients of x_next = sample * x + predicted * x0 + previous * x0_before."""

    timestep: int
    sample: float
    predicted: float
    previous: float

    def advance(self, x: Tensor, x0: Tensor, x0_before: Tensor) -> Tensor:
        """Return the next x. All tensors have one shape, such as [B, K, J].

        `x0` is this step's prediction and `x0_before` the one of the step before. Terms with a
        zero coefficient stay out of the exported graph.
        """
        out = self.predicted * x0
        if self.sample:
            out = out + self.sample * x
        if self.previous:
            out = out + self.previous * x0_before
        return out


def solver_steps(steps: int) -> list[SolverStep]:
    """Return the coefficients of every step (Lu et al., arXiv 2211.01095, algorithm 2).

    The first step, without history, and the last, which ends at sigma 0, are of order 1.
    """
    timesteps, sigmas = solver_grid(steps)
    alpha = 1 / np.sqrt(sigmas**2 + 1)
    log_snr = [-math.log(sigma) if sigma else math.inf for sigma in sigmas]
    table = []
    for i, timestep in enumerate(timesteps):
        width = log_snr[i + 1] - log_snr[i]
        x0_weight = -alpha[i + 1] * math.expm1(-width)
        sample_weight = (sigmas[i + 1] * alpha[i + 1]) / (sigmas[i] * alpha[i])
        second = 0.0
        if 0 < i < steps - 1:
            second = 0.5 * x0_weight * width / (log_snr[i] - log_snr[i - 1])
        table.append(
            SolverStep(
                int(timestep), float(sample_weight), float(x0_weight + second), -float(second)
            )
        )
    return table


def q_sample(x0: Tensor, noise: Tensor, timestep: Tensor) -> Tensor:
    """Mix x0 and noise, both [B, ...], for training at timestep, int64 [B] in 0..999."""
    power = torch.from_numpy(alphas_cumprod()).float().to(x0.device)[timestep]
    power = power.reshape(-1, *[1] * (x0.dim() - 1))
    return power.sqrt() * x0 + (1 - power).sqrt() * noise
