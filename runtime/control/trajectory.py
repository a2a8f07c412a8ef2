"""Chunks in time: pure functions from a time to joint targets.

A chunk is indexed by time since its capture, so the steps that passed while it was computed are
never played. A new chunk takes over through a linear blend. After its last step a chunk slows from
its last velocity to rest over `REST_NS`, then holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from runtime.mailbox import ChunkMsg, Vector

# almond-bot/axol #306: a late target is extrapolated at the last velocity to rest over 80 ms.
REST_NS = 80_000_000


class Plan(Protocol):
    """Where the joints should be at a time."""

    def sample(self, t_ns: int) -> Vector:
        """Joint targets, float64 [J] rad."""
        ...


@dataclass(frozen=True, slots=True)
class Hold:
    """Stay."""

    position_rad: Vector

    def sample(self, t_ns: int) -> Vector:
        return self.position_rad


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """Linear between the steps of one chunk, then to rest. float64 [K, J] rad, K >= 2."""

    start_ns: int
    step_ns: int
    target_rad: Vector

    @property
    def last_step_ns(self) -> int:
        return self.start_ns + (len(self.target_rad) - 1) * self.step_ns

    @property
    def rest_ns(self) -> int:
        """The time from which on nothing moves."""
        return self.last_step_ns + REST_NS

    def sample(self, t_ns: int) -> Vector:
        if t_ns >= self.last_step_ns:
            return self._slow_to_rest(t_ns - self.last_step_ns)
        step, since_step_ns = divmod(max(t_ns - self.start_ns, 0), self.step_ns)
        share = since_step_ns / self.step_ns
        before, after = self.target_rad[step], self.target_rad[step + 1]
        return np.asarray(before + (after - before) * share)

    def _slow_to_rest(self, after_ns: int) -> Vector:
        """Velocity falls linearly from the last one to 0, so the way is v * (t - t^2 / 2T)."""
        last, before = self.target_rad[-1], self.target_rad[-2]
        t_ns = min(after_ns, REST_NS)
        run_ns = t_ns - t_ns * t_ns / (2 * REST_NS)
        return np.asarray(last + (last - before) * (run_ns / self.step_ns))


@dataclass(frozen=True, slots=True)
class Blend:
    """From `old` to `new` in a straight weight over `blend_ns` from `switch_ns` on."""

    old: Plan
    new: ChunkPlan
    switch_ns: int
    blend_ns: int

    def sample(self, t_ns: int) -> Vector:
        if self.done(t_ns):
            return self.new.sample(t_ns)
        weight = max(t_ns - self.switch_ns, 0) / self.blend_ns
        return np.asarray((1.0 - weight) * self.old.sample(t_ns) + weight * self.new.sample(t_ns))

    def done(self, t_ns: int) -> bool:
        return t_ns >= self.switch_ns + self.blend_ns


def pruned(plan: Plan | None, now_ns: int) -> Plan | None:
    """`plan` from `now_ns` on, rid of blends and chunks that are over: None when nothing is left.

    Without it a chain of blends, each begun within the one before, would grow for ever.
    """
    if isinstance(plan, Blend):
        if plan.done(now_ns):
            return pruned(plan.new, now_ns)
        return replace(plan, old=pruned(plan.old, now_ns) or Hold(plan.old.sample(now_ns)))
    if isinstance(plan, ChunkPlan) and now_ns >= plan.rest_ns:
        return None
    return plan


class Trajectory:
    """The plan being played: takes chunks, gives targets."""

    def __init__(self, blend_s: float) -> None:
        self._blend_ns = round(blend_s * 1e9)
        self._plan: Plan | None = None
        self.chunk: ChunkMsg | None = None  # the one being played

    def clear(self) -> None:
        self._plan = self.chunk = None

    def take(self, chunk: ChunkMsg, now_ns: int, command_rad: Vector, resume: bool) -> float | None:
        """Switch to `chunk` at `now_ns`, blending from the old plan.

        With `resume`, or with no plan left to play, the blend starts from `command_rad`, where the
        joints were last told to be. Returns the jump at the seam, the largest difference between
        old and new plan over the joints in rad, or None when the whole chunk is past: it is refused
        and the old plan goes on.
        """
        new = ChunkPlan(chunk.t_capture_ns, chunk.step_ns, chunk.target_rad)
        if now_ns >= new.last_step_ns:
            return None
        going = None if resume else pruned(self._plan, now_ns)
        old = going or Hold(command_rad)
        jump_rad = float(np.max(np.abs(old.sample(now_ns) - new.sample(now_ns))))
        self._plan, self.chunk = Blend(old, new, now_ns, self._blend_ns), chunk
        return jump_rad

    def target(self, now_ns: int) -> Vector | None:
        """Joint targets at `now_ns`, or None when there is nothing to play."""
        self._plan = pruned(self._plan, now_ns)
        if self._plan is None:
            self.chunk = None
            return None
        return self._plan.sample(now_ns)
