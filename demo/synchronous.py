"""Runs System 2 inside System 1, as the released policy does: the robot waits for each condition.

The study compares this with the runtime, which runs both systems side by side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from runtime.lockstep import Delay
from runtime.mailbox import ConditionMsg
from runtime.policy.system1 import System1
from runtime.policy.system2 import System2
from runtime.workers import Workers


class OnlyWhenAsked(System2):
    """A System 2 that computes no condition by itself."""

    def step(self, now_ns: int) -> None:
        """Do nothing: System 1 calls `compute`."""


class Synchronous(System1):
    """A System 1 that computes a condition itself on every `every`-th call of an episode."""

    def __init__(self, workers: Workers, system2: System2, every: int) -> None:
        self._calls = 0
        self._every = every
        self._computes = system2
        self._clock = workers.clock
        self._boxes = workers.mailboxes
        self.waited = False  # whether the newest chunk waited for a condition
        graphs, config, ring = workers.graphs, workers.config, workers.system1.ring
        super().__init__(graphs, workers.mailboxes, config, ring, workers.seed)

    def newest_condition(self, now_ns: int) -> ConditionMsg | None:
        """Compute a condition if one is due. Return None while the history is too short."""
        self.waited = self._calls % self._every == 0
        if self.waited:
            message = self._computes.compute(now_ns)
            if message is None:
                return None
            self._boxes.condition.put(message, self._clock.now_ns())
        self._calls += 1
        return super().newest_condition(now_ns)

    def _begin(self, epoch: int) -> None:
        self._calls = 0
        super()._begin(epoch)


def synchronous(
    workers: Workers, delays: Mapping[str, Delay], every: int
) -> tuple[Workers, dict[str, Delay]]:
    """Run System 2 in every `every`-th call of System 1, and add its delay to that call."""
    system2 = OnlyWhenAsked(workers.graphs, workers.mailboxes, workers.config, workers.system2.ring)
    system1 = Synchronous(workers, system2, every)

    def both(rng: np.random.Generator) -> int:
        delay_ns = delays["system1"](rng)
        return delay_ns + delays["system2"](rng) if system1.waited else delay_ns

    return replace(workers, system1=system1, system2=system2), {**delays, "system1": both}
