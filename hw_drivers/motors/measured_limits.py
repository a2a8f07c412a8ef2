"""Puts measured ranges into robot.yaml, and leaves the rest of the file as it is."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from pydantic import BaseModel

from hw_drivers.motors.joint_range import Range
from hw_drivers.robot.config import JointConfig, RobotConfig
from v2a.config import load_yaml
from v2a.errors import ConfigError
from v2a.files import replacing
from v2a.yaml_edit import Path as YamlPath
from v2a.yaml_edit import with_values


class _File(BaseModel):
    robot: RobotConfig


# robot.yaml rounds radians: a limit this near to an end of the turn means the end.
_ROUNDED_TICKS = 2


class Measured(NamedTuple):
    """A joint's zero, and its whole range, rounded inward to 0.1 mrad."""

    zero_tick: int
    lower_rad: float
    upper_rad: float

    def __str__(self) -> str:
        return (
            f"zero_tick: {self.zero_tick}, lower_rad: {self.lower_rad:.4f}, "
            f"upper_rad: {self.upper_rad:.4f}"
        )


def measured(joint: JointConfig, found: Range) -> Measured:
    """Return what a measured range means for the joint. Pure function.

    The zero stays where it was on the arm. Only if the file has no limits of its own for the joint,
    and 0 rad lies outside the range, is the middle of the range the new zero.
    """
    zero = (joint.zero_tick + found.shift) % joint.servo_model.turn_ticks
    if all(unmeasured(joint)) and not found.low <= zero <= found.high:
        zero = (found.low + found.high) // 2
    ends = [
        joint.direction * (tick - zero) * joint.rad_per_tick for tick in (found.low, found.high)
    ]
    return Measured(zero, math.ceil(min(ends) * 1e4) / 1e4, math.floor(max(ends) * 1e4) / 1e4)


def zero_moves(joint: JointConfig, found: Range, now: Measured) -> bool:
    """Whether `now` puts 0 rad at another place of the arm than the file has it. Pure function."""
    return now.zero_tick != (joint.zero_tick + found.shift) % joint.servo_model.turn_ticks


def unmeasured(joint: JointConfig) -> tuple[bool, bool]:
    """Return whether the lower and the upper limit are ends of the servo's turn. Pure function.

    `v2a robot new` writes these for a joint that nobody has measured. They narrow nothing.
    """
    last_tick = joint.servo_model.turn_ticks - 1
    lower, upper = (
        joint.zero_tick + joint.direction * limit_rad / joint.rad_per_tick
        for limit_rad in (joint.lower_rad, joint.upper_rad)
    )
    first, last = (lower, upper) if joint.direction == 1 else (upper, lower)
    ends = (first <= _ROUNDED_TICKS, last >= last_tick - _ROUNDED_TICKS)
    return ends if joint.direction == 1 else (ends[1], ends[0])


def new_values(config: RobotConfig, found: Mapping[str, Measured]) -> dict[YamlPath, float]:
    """Return the values of robot.yaml that must change. A narrower limit of the file stays.

    Pure function. Raises ConfigError if a joint's range in the file misses the measured one.
    """
    values: dict[YamlPath, float] = {}
    for k, joint in enumerate(config.joints):
        now, (no_lower, no_upper) = found[joint.name], unmeasured(joint)
        lower_rad = now.lower_rad if no_lower else max(joint.lower_rad, now.lower_rad)
        upper_rad = now.upper_rad if no_upper else min(joint.upper_rad, now.upper_rad)
        if lower_rad >= upper_rad:
            raise ConfigError(
                f"{joint.name}: its limits in robot.yaml, {joint.lower_rad:g} to "
                f"{joint.upper_rad:g} rad, miss the measured range; check zero_tick and direction"
            )
        new = Measured(now.zero_tick, lower_rad, upper_rad)._asdict()
        values |= {
            ("robot", "joints", k, key): value
            for key, value in new.items()
            if value != getattr(joint, key)
        }
    return values


def put_into(file: Path, values: Mapping[YamlPath, float]) -> None:
    """Write the values into the file, which then still loads.

    Raises ConfigError, with the file as it was, if it has no such keys or can't be written.
    """
    file = file.resolve()  # the file behind a link, not the link
    text = with_values(file.read_text(encoding="utf-8"), values)
    try:
        with replacing(file) as beside:
            beside.write_text(text, encoding="utf-8")
            shutil.copymode(file, beside)
            load_yaml(beside, _File)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error
