"""Torque on without a jump."""

from __future__ import annotations

import math
from typing import Literal

from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family

# What a servo has confirmed about its torque; unknown is everything else.
TorqueState = Literal["on", "off", "unknown"]


def hold_still(bus: ServoBus, family: Family, servo_id: int, speed_rad_s: float) -> int:
    """Switch torque on where the servo is, with its watchdog off, and return that tick.

    From then on the servo moves to a goal no faster than `speed_rad_s`, also when it was blocked
    and comes free. Raises BusError if the servo refuses or does not answer.
    """
    watchdog = family.watchdog
    if watchdog and watchdog.register in bus.models[servo_id].items:
        bus.write(servo_id, watchdog.register, 0)  # a tripped watchdog would refuse the goal
    bus.write(servo_id, family.speed_register, _speed(bus, family, servo_id, speed_rad_s))
    # The goal comes before torque: the servo would jump to its last goal.
    present = bus.read(servo_id, "present_position")
    bus.write(servo_id, "goal_position", present)
    bus.write(servo_id, "torque_enable", 1)
    return present


def _speed(bus: ServoBus, family: Family, servo_id: int, speed_rad_s: float) -> int:
    """`speed_rad_s` in the servo's unit, rounded up: 0 would mean no limit."""
    items = bus.models[servo_id].items
    speed = math.ceil(speed_rad_s / items[family.speed_register].scale)
    if family.speed_limit_register in items:
        speed = min(speed, bus.read(servo_id, family.speed_limit_register))
    return speed
