"""Lets the PyTorch policy drive training episodes, to collect the states that it reaches itself.

This replaces the runtime during training and counts delays in whole steps. All reported figures
come from the real runtime.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from demo import collect, task
from demo.arm import F64
from demo.physics import World
from export.own.policy import Video2ActPolicy

SYSTEM1_STEPS: Final = 2
SYSTEM2_STEPS: Final = 4
DELAY_STEPS: Final = 1
OWN_SEEDS: Final = 500_000  # counted from collect.TRAINING_SEEDS


class PolicyDriver:
    """Drives one episode. Conditions and chunks are used one step after their newest frame."""

    def __init__(
        self,
        policy: Video2ActPolicy,
        lang: Tensor,
        rng: np.random.Generator,
    ):
        self._policy, self._lang, self._rng = policy, lang, rng
        self._frames: deque[npt.NDArray[np.uint8]] = deque(maxlen=policy.config.motion.frames)
        self._condition: tuple[int, Tensor] | None = None
        self._chunks: deque[tuple[int, F64]] = deque(maxlen=2)

    def __call__(self, step: int, world: World, command: F64, image: npt.NDArray[np.uint8]) -> F64:
        asked = step - (task.WARM_UP_STEPS - 1)
        if self._condition is None:
            self._condition = (step, self._see())  # the warm-up is long enough for a first one
        if asked % SYSTEM1_STEPS == 0:
            position = np.round(world.joints_rad / collect.TICK_RAD) * collect.TICK_RAD
            self._chunks.append((step, self._plan(step, image, position, command)))
        if asked % SYSTEM2_STEPS == 0:
            self._condition = (step, self._see())
        return self._follow(step + 1, command)

    def watch(self, image: npt.NDArray[np.uint8]) -> None:
        """Add a frame, uint8 [H, W, 3], to the clip; needed at every step, warm-up included."""
        self._frames.append(image)

    @torch.no_grad()
    def _see(self) -> Tensor:
        policy, clip = self._policy, torch.from_numpy(np.stack(self._frames))[None]
        text_kv = policy.video_dit.text_kv(self._lang)
        spatial = policy.vdm_spatial(policy.vae_spatial(clip[:, -1:]), text_kv)
        motion = policy.vdm_motion(policy.vae_motion(clip), text_kv)
        return torch.cat(policy.condition_tokens(spatial, motion), dim=1)

    @torch.no_grad()
    def _plan(self, step: int, image: npt.NDArray[np.uint8], position: F64, command: F64) -> F64:
        policy = self._policy
        assert self._condition is not None
        seen, tokens = self._condition
        age_s = torch.tensor([(step - seen) * policy.config.step_s])
        commands = torch.from_numpy(command).float()[None]
        image_kv, state = policy.observe(
            policy.frame_encode(torch.from_numpy(image)[None]),
            torch.from_numpy(position).float()[None],
            commands,
            age_s,
            policy.observer.register_kv(tokens),
        )
        noise = torch.from_numpy(
            self._rng.standard_normal((1, policy.config.chunk, len(command)))
        ).float()
        lang_kv = policy.core.language_kv(self._lang)
        chunk = policy.denoise(
            noise, lang_kv, policy.core.visual_kv(tokens), image_kv, state, commands
        )
        return chunk[0].double().numpy()

    def _follow(self, step: int, command: F64) -> F64:
        """Return the command for `step` from the newest chunk that is ready; else keep still."""
        for start, chunk in reversed(self._chunks):
            if step - 1 - start >= DELAY_STEPS:
                return np.asarray(chunk[min(step - start, len(chunk) - 1)])
        return command


def drive(
    policy: Video2ActPolicy,
    lang: Tensor,
    scenario: task.Scenario,
    seed: int,
) -> collect.Outcome:
    """Play an episode under the policy, with the arm's speed limits; `lang` is [1, L, Dl]."""
    rng = np.random.default_rng([seed, 99])
    driver = PolicyDriver(policy, lang, rng)
    return collect.play(scenario, collect.limited(driver), rng, driver.watch)


@dataclass(frozen=True)
class OwnEpisode:
    """Plays episode `first + index` under the policy, for `collect.collect`."""

    policy: Video2ActPolicy
    lang: Tensor
    seed: int
    first: int = 0

    def __call__(self, index: int) -> collect.Outcome:
        torch.set_num_threads(1)
        seed = collect.TRAINING_SEEDS + OWN_SEEDS * (1 + self.seed) + self.first + index
        scenario = task.scenario(seed, "rebound" if index % 5 < 2 else "puck")
        return drive(self.policy, self.lang, scenario, seed)
