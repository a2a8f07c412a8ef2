"""The sampler against the released policy's grid and against an exact solution."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from export.layers.sampler import alphas_cumprod, q_sample, solver_grid, solver_steps


def test_grid_is_the_released_policys(golden: dict[str, Tensor]) -> None:
    timesteps, sigmas = solver_grid(5)
    assert timesteps.tolist() == golden["sched.timesteps"].tolist()
    # The release cumulates 1000 factors in float32.
    torch.testing.assert_close(
        torch.from_numpy(sigmas).float(), golden["sched.sigmas"], rtol=2e-5, atol=0
    )


@pytest.mark.parametrize("steps", [1, 2, 5, 12])
def test_a_sure_prediction_stays_on_the_line_from_noise_to_sample(steps: int) -> None:
    x0, noise = torch.tensor([0.7, -1.3]).double(), torch.tensor([0.2, 2.0]).double()
    _, sigmas = solver_grid(steps)

    def on_line(sigma: float) -> Tensor:
        return (x0 + sigma * noise) / math.sqrt(1 + sigma**2)

    x = on_line(sigmas[0])
    for step, sigma in zip(solver_steps(steps), sigmas[1:], strict=True):
        x = step.advance(x, x0, x0)
        torch.testing.assert_close(x, on_line(sigma))


def _gaussian_error(steps: int, spread: float = 0.5) -> float:
    """Error on data ~ N(0, spread^2), whose best prediction and whose ODE are known exactly."""
    power = alphas_cumprod()
    x = before = x0 = 1.0
    total = math.sqrt(power[-1] * spread**2 + 1 - power[-1])
    for step in solver_steps(steps):
        alpha, noise_power = math.sqrt(power[step.timestep]), 1 - power[step.timestep]
        prediction = alpha * spread**2 * x / (alpha**2 * spread**2 + noise_power)
        before, x0 = x0, prediction
        x = float(step.advance(torch.tensor(x).double(), torch.tensor(x0), torch.tensor(before)))
    return abs(x - spread / total)


def test_solver_converges_to_the_exact_solution() -> None:
    errors = [_gaussian_error(steps) for steps in (5, 10, 20, 40)]
    assert errors[-1] < 1e-3
    assert all(fine < 0.7 * coarse for coarse, fine in pairwise(errors))


def test_training_noise_matches_the_schedule() -> None:
    x0, noise = torch.ones(3, 2, 2), torch.full((3, 2, 2), 2.0)
    timestep = torch.tensor([0, 500, 999])
    noisy = q_sample(x0, noise, timestep)
    # Squared-cosine signal power: almost all at 0, about half in the middle, none at the end.
    assert noisy[0, 0, 0] == pytest.approx(1.0, abs=0.02)
    assert noisy[1, 0, 0] == pytest.approx(math.sqrt(0.49) + 2 * math.sqrt(0.51), abs=0.02)
    assert noisy[2, 0, 0] == pytest.approx(2.0, abs=1e-3)
