"""Limits motion: from the last command and a target to the next command, as pure functions.

Position, velocity and acceleration are held by construction: a step is never longer than the
braking way that is left before the target, and the target lies in range, so the range is reached
with what acceleration allows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from runtime.mailbox import Vector

_ROUNDING_RAD = 1e-9


@dataclass(frozen=True, slots=True)
class Limits:
    """Per joint, float64 [J]: range in rad, largest speed in rad/s and acceleration in rad/s^2."""

    names: tuple[str, ...]
    lower_rad: Vector
    upper_rad: Vector
    velocity_rad_s: Vector
    acceleration_rad_s2: Vector


@dataclass(frozen=True, slots=True)
class Move:
    """The next command, float64 [J] rad, and which limits it had to give way to."""

    command_rad: Vector
    clamps: tuple[str, ...] = ()


class MotionLimiter:
    """`limits` at one nominal step of `period_s`, whatever a tick's real length: a late tick must
    not leap."""

    def __init__(self, limits: Limits, period_s: float) -> None:
        self.limits = limits
        self._step_rad = limits.velocity_rad_s * period_s
        self._change_rad = limits.acceleration_rad_s2 * period_s**2  # of the step, in one tick

    def inside(self, position_rad: Vector) -> Vector:
        """The nearest position in range."""
        return np.clip(position_rad, self.limits.lower_rad, self.limits.upper_rad)

    def step_toward(self, command_rad: Vector, last_step_rad: Vector, target_rad: Vector) -> Move:
        """One tick from `command_rad`, reached by `last_step_rad`, toward a finite target."""
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
        """One tick nearer to rest."""
        step = last_step_rad - np.clip(last_step_rad, -self._change_rad, self._change_rad)
        return Move(self.inside(command_rad + step))

    def objection(self, before_rad: Vector, after_rad: Vector) -> str | None:
        """Why `after_rad` may not follow on `before_rad`, or None where it may.

        Asked of every write by itself, and simple: it must not share a mistake with `toward`.
        """
        if not np.isfinite(after_rad).all():
            return "it is not finite"
        if (after_rad < self.limits.lower_rad).any() or (after_rad > self.limits.upper_rad).any():
            return "it is out of range"
        if (np.abs(after_rad - before_rad) > self._step_rad + _ROUNDING_RAD).any():
            return "it is faster than allowed"
        return None


def braking_step(distance_rad: Vector, change_rad: Vector) -> Vector:
    """The longest step from which steps that shrink by `change_rad` end after `distance_rad`.

    k steps s, s - c, s - 2c, ... sum to k s - c k (k - 1) / 2; k is the smallest number of them
    whose last one is no longer than c.
    """
    steps = np.ceil((np.sqrt(1.0 + 8.0 * distance_rad / change_rad) - 1.0) / 2.0)
    steps = np.maximum(steps, 1.0)
    return np.asarray(distance_rad / steps + change_rad * (steps - 1.0) / 2.0)
