"""The motion of a horn: pure functions of position, velocity and limits."""

from __future__ import annotations

import math
from typing import NamedTuple


class Limits(NamedTuple):
    """The highest velocity and acceleration of a horn; `inf` for no limit."""

    velocity_rad_s: float
    acceleration_rad_s2: float = math.inf


def toward(
    position_rad: float, velocity_rad_s: float, goal_rad: float, limits: Limits, dt_s: float
) -> tuple[float, float]:
    """(position, velocity) after `dt_s` of a trapezoidal profile that comes to rest at the goal."""
    error_rad = goal_rad - position_rad
    if not error_rad:
        return goal_rad, 0.0
    # At a higher speed than this, the horn could not stop before the goal.
    braking_rad_s = math.sqrt(2 * limits.acceleration_rad_s2 * abs(error_rad))
    wanted_rad_s = math.copysign(min(limits.velocity_rad_s, braking_rad_s), error_rad)
    velocity_rad_s = ramp(velocity_rad_s, wanted_rad_s, limits.acceleration_rad_s2, dt_s)
    if velocity_rad_s * dt_s / error_rad >= 1.0:
        return goal_rad, 0.0
    return position_rad + velocity_rad_s * dt_s, velocity_rad_s


def ramp(
    velocity_rad_s: float, wanted_rad_s: float, acceleration_rad_s2: float, dt_s: float
) -> float:
    """The velocity after `dt_s`, on its way to the wanted velocity."""
    if not dt_s:  # an infinite acceleration times zero is NaN
        return velocity_rad_s
    reach_rad_s = acceleration_rad_s2 * dt_s
    return velocity_rad_s + max(-reach_rad_s, min(reach_rad_s, wanted_rad_s - velocity_rad_s))


def timed(distance_rad: float, duration_s: float, ramp_s: float) -> Limits:
    """The limits with which `distance_rad` takes `duration_s`, with ramps of `ramp_s` at both ends.

    A ramp is at most half of the duration. A duration of 0 means no limits.
    """
    if not duration_s:
        return Limits(math.inf)
    ramp_s = min(ramp_s, duration_s / 2)
    velocity_rad_s = distance_rad / (duration_s - ramp_s)
    return Limits(velocity_rad_s, velocity_rad_s / ramp_s if ramp_s else math.inf)


def lag(position_rad: float, setpoint_rad: float, time_constant_s: float, dt_s: float) -> float:
    """The position `dt_s` later of a horn that follows its set-point as a first-order lag."""
    return setpoint_rad + (position_rad - setpoint_rad) * math.exp(-dt_s / time_constant_s)
