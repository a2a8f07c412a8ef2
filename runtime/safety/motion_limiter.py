"""Computes the next command from the last command and a target, within the motion limits.

The target is first clamped to the joint's range. A step is never longer than the distance from
which the joint can still brake before the target. So position, velocity and acceleration all stay
within their limits.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.mailbox import Vector

_ROUNDING_RAD = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits of each joint, float64 [J]: range, largest speed and largest acceleration."""

    names: tuple[str, ...]
    lower_rad: Vector
    upper_rad: Vector
    velocity_rad_s: Vector
    acceleration_rad_s2: Vector


@dataclass(frozen=True, slots=True)
class Move:
    """The next command, float64 [J] rad, and the names of the limits that changed it."""

    command_rad: Vector
    clamps: tuple[str, ...] = ()


class MotionLimiter:
    """Applies `limits` to steps of the nominal period `period_s`.

    The real length of a tick does not count: a late tick must not jump.
    """

    def __init__(self, limits: Limits, period_s: float) -> None:
        self.limits = limits
        self._step_rad = limits.velocity_rad_s * period_s
        self._change_rad = limits.acceleration_rad_s2 * period_s**2  # of the step, in one tick

    def inside(self, position_rad: Vector) -> Vector:
        """Return the nearest position in range, float64 [J] rad."""
        return np.clip(position_rad, self.limits.lower_rad, self.limits.upper_rad)

    def step_toward(self, command_rad: Vector, last_step_rad: Vector, target_rad: Vector) -> Move:
        """Return the move of one tick from `command_rad` toward `target_rad`.

        All arrays are float64 [J] rad and finite. `last_step_rad` is the step of the tick before.
        """
        inside = self.inside(target_rad)
        wish = inside - command_rad
        reach = np.minimum(self._step_rad, braking_step(np.abs(wish), self._change_rad))
        wanted = np.clip(wish, -reach, reach)
        step = np.clip(wanted, last_step_rad - self._change_rad, last_step_rad + self._change_rad)
        clamps = {
            "limit_clamps": inside != target_rad,
            "velocity_clamps": np.abs(wish) > self._step_rad,
            "acceleration_clamps": wanted != step,
        }
        return Move(
            self.inside(command_rad + step),
            tuple(name for name, where in clamps.items() if where.any()),
        )

    def brake(self, command_rad: Vector, last_step_rad: Vector) -> Move:
        """Return a move that is slower than `last_step_rad`; both arrays float64 [J] rad."""
        step = last_step_rad - np.clip(last_step_rad, -self._change_rad, self._change_rad)
        return Move(self.inside(command_rad + step))

    def objection(self, before_rad: Vector, after_rad: Vector) -> str | None:
        """Return why `after_rad` must not follow `before_rad`, or None; both float64 [J] rad.

        This checks every command that is sent. It is simple on purpose and shares no code with
        `step_toward`, so that it does not share its mistakes.
        """
        if not np.isfinite(after_rad).all():
            return "it is not finite"
        if (after_rad < self.limits.lower_rad).any() or (after_rad > self.limits.upper_rad).any():
            return "it is out of range"
        if (np.abs(after_rad - before_rad) > self._step_rad + _ROUNDING_RAD).any():
            return "it is faster than allowed"
        return None


def braking_step(distance_rad: Vector, change_rad: Vector) -> Vector:
    """Return the longest step that still allows braking within `distance_rad`, float64 [J] rad.

    Each later step is shorter by `change_rad`, float64 [J] rad. The k steps s, s - c, s - 2c, ...
    sum to k s - c k (k - 1) / 2. k is the smallest number whose last step is at most c.
    """
    steps = np.ceil((np.sqrt(1.0 + 8.0 * distance_rad / change_rad) - 1.0) / 2.0)
    steps = np.maximum(steps, 1.0)
    return np.asarray(distance_rad / steps + change_rad * (steps - 1.0) / 2.0)
