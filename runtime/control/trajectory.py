"""Plays chunks: computes the joint targets for any time.

Time since capture selects the row of a chunk, so rows that passed during its computation are not
played. A new chunk takes over by a linear blend. After its last row the motion slows down to rest
over `REST_NS`, then the arm holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from runtime.mailbox import ChunkMsg, Vector

# As in almond-bot/axol #306: without a new target, the last velocity ramps to rest over 80 ms.
REST_NS = 80_000_000


class Plan(Protocol):
    """The planned joint positions as a function of time."""

    def sample(self, t_ns: int) -> Vector:
        """Return the joint targets at `t_ns`, float64 [J] rad."""
        ...


@dataclass(frozen=True, slots=True)
class Hold:
    """A plan that stays at one position, float64 [J] rad."""

    position_rad: Vector

    def sample(self, t_ns: int) -> Vector:
        """Return the position, float64 [J] rad."""
        return self.position_rad


@dataclass(frozen=True, slots=True)
class ChunkPlan:
    """A plan that interpolates the rows of one chunk, float64 [K, J] rad, then comes to rest.

    K is at least 2.
    """

    start_ns: int
    step_ns: int
    target_rad: Vector

    @property
    def last_step_ns(self) -> int:
        return self.start_ns + (len(self.target_rad) - 1) * self.step_ns

    @property
    def rest_ns(self) -> int:
        """The time at which the motion ends."""
        return self.last_step_ns + REST_NS

    def sample(self, t_ns: int) -> Vector:
        """Return the joint targets at `t_ns`, float64 [J] rad."""
        if t_ns >= self.last_step_ns:
            return self._slow_to_rest(t_ns - self.last_step_ns)
        step, since_step_ns = divmod(max(t_ns - self.start_ns, 0), self.step_ns)
        share = since_step_ns / self.step_ns
        before, after = self.target_rad[step], self.target_rad[step + 1]
        return np.asarray(before + (after - before) * share)

    def _slow_to_rest(self, after_ns: int) -> Vector:
        """The velocity falls linearly to 0, so the distance is v * (t - t^2 / 2T)."""
        last, before = self.target_rad[-1], self.target_rad[-2]
        t_ns = min(after_ns, REST_NS)
        run_ns = t_ns - t_ns * t_ns / (2 * REST_NS)
        return np.asarray(last + (last - before) * (run_ns / self.step_ns))


@dataclass(frozen=True, slots=True)
class Blend:
    """A plan that moves from `old` to `new` linearly, in `blend_ns` from `switch_ns` on."""

    old: Plan
    new: ChunkPlan
    switch_ns: int
    blend_ns: int

    def sample(self, t_ns: int) -> Vector:
        """Return the joint targets at `t_ns`, float64 [J] rad."""
        if self.done(t_ns):
            return self.new.sample(t_ns)
        weight = max(t_ns - self.switch_ns, 0) / self.blend_ns
        return np.asarray((1.0 - weight) * self.old.sample(t_ns) + weight * self.new.sample(t_ns))

    def done(self, t_ns: int) -> bool:
        return t_ns >= self.switch_ns + self.blend_ns


def pruned(plan: Plan | None, now_ns: int) -> Plan | None:
    """Remove finished blends and chunks from `plan`. Return None if it is over at `now_ns`.

    Without this, a chain of blends that each begin within the last one would grow for ever.
    """
    if isinstance(plan, Blend):
        if plan.done(now_ns):
            return pruned(plan.new, now_ns)
        return replace(plan, old=pruned(plan.old, now_ns) or Hold(plan.old.sample(now_ns)))
    if isinstance(plan, ChunkPlan) and now_ns >= plan.rest_ns:
        return None
    return plan


class Trajectory:
    """The plan in play: takes chunks and returns targets."""

    def __init__(self, blend_s: float) -> None:
        self._blend_ns = round(blend_s * 1e9)
        self._plan: Plan | None = None
        self.chunk: ChunkMsg | None = None  # the chunk in play

    def clear(self) -> None:
        """Drop the plan: there is no target until the next chunk."""
        self._plan = self.chunk = None

    def take(self, chunk: ChunkMsg, now_ns: int, command_rad: Vector, resume: bool) -> float | None:
        """Switch to `chunk` at `now_ns` by a blend from the old plan.

        With `resume`, or without an old plan, the blend starts at the last command `command_rad`,
        float64 [J] rad. Returns the jump at the seam: the largest difference between old and new
        plan over the joints, in rad. Returns None and keeps the old plan if the chunk is over.
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
        """Return the joint targets at `now_ns`, float64 [J] rad, or None without a plan."""
        self._plan = pruned(self._plan, now_ns)
        if self._plan is None:
            self.chunk = None
            return None
        return self._plan.sample(now_ns)
