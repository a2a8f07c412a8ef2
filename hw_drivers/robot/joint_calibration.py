"""A robot's calibration: which servos it was made with, and each joint's range in ticks.

Servos have no serial number. What is written into them when they are calibrated (the homing offset
and the position limits, to the tick) tells one arm from another all the same.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml

from hw_drivers.bus.bus import ServoBus
from hw_drivers.robot.config import JointConfig, RobotConfig
from v2a.config import Strict, load_yaml
from v2a.errors import BusError, ConfigError

REGISTERS = ("homing_offset", "min_position_limit", "max_position_limit")


class ServoCalibration(Strict):
    """A servo as it was when it was calibrated; `homing_offset` is None where it has none."""

    id: int
    model_number: int
    firmware_version: int
    homing_offset: int | None = None
    min_position_limit: int
    max_position_limit: int


class Calibration(Strict):
    """The whole file. `joints`: name -> its servo."""

    robot: str
    joints: dict[str, ServoCalibration]


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write the file, whole or not at all. Raises ConfigError where it can't be written."""
    text = yaml.safe_dump(calibration.model_dump(exclude_none=True), sort_keys=False)
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.write_text(f"# Written by v2a motors calibrate\n{text}")
        os.replace(unfinished, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def read_servo(bus: ServoBus, servo_id: int) -> ServoCalibration:
    """What the servo says of itself now. Raises BusError where it does not answer."""
    pong = bus.ping(servo_id)
    if pong is None:
        raise BusError(f"servo {servo_id}: no answer to ping; check its cable, power and id")
    known = bus.models[servo_id].items
    registers = {name: bus.read(servo_id, name) for name in REGISTERS if name in known}
    return ServoCalibration(
        id=servo_id,
        model_number=pong.model_number,
        firmware_version=pong.firmware_version,
        **registers,
    )


def check_calibration(
    stored: Mapping[str, ServoCalibration], found: Mapping[str, ServoCalibration]
) -> list[str]:
    """What of `found`, by joint, is not as it was `stored`; empty where all is."""
    faults = [
        f"{name}: has no calibration, calibrated are {', '.join(stored) or 'none'}"
        for name in found
        if name not in stored
    ]
    faults += [
        f"{name}: is calibrated but not a joint of this robot"
        for name in stored
        if name not in found
    ]
    for name in stored.keys() & found.keys():
        expected, is_now = stored[name].model_dump(), found[name].model_dump()
        different = [
            f"{key} is {is_now[key]}, calibrated with {expected[key]}"
            for key in expected
            if is_now[key] != expected[key]
        ]
        if different:
            faults.append(f"{name} (id {found[name].id}): {', '.join(different)}")
    return sorted(faults)


def check_ranges(
    joints: tuple[JointConfig, ...], stored: Mapping[str, ServoCalibration]
) -> list[str]:
    """Limits of robot.yaml that lie outside of the range that was measured."""
    faults: list[str] = []
    for joint in joints:
        if servo := stored.get(joint.name):
            low, high = servo.min_position_limit, servo.max_position_limit
            faults += limits_outside(joint, low, high, "the calibrated range")
    return faults


def limits_outside(joint: JointConfig, low: int, high: int, what: str) -> Iterator[str]:
    """Limits of the joint that lie outside of the ticks `low`..`high`, which are `what`."""
    for key, limit_rad in (("lower_rad", joint.lower_rad), ("upper_rad", joint.upper_rad)):
        tick = round(joint.zero_tick + joint.direction * limit_rad / joint.rad_per_tick)
        if not low - 1 <= tick <= high + 1:  # radians in the file are rounded
            yield (
                f"{joint.name}: {key} {limit_rad} is tick {tick}, outside of {what} "
                f"{low}..{high}; narrow the limit, or correct zero_tick"
            )


def calibration_faults(config: RobotConfig, bus: ServoBus) -> list[str]:
    """What of the robot on `bus` is not as its calibration has it, with the advice as the last
    line; nothing for a robot without one."""
    if config.calibration is None:
        return []
    try:
        stored = load_yaml(config.calibration, Calibration)
    except ConfigError as error:
        return [f"{error}; run v2a motors calibrate"]
    found = {joint.name: read_servo(bus, joint.id) for joint in config.joints}
    faults = check_calibration(stored.joints, found) or check_ranges(config.joints, stored.joints)
    if faults:
        faults.append(
            f"{config.calibration} is the calibration of {stored.robot!r}: of another arm, or "
            "before a change; name the right one, or run v2a motors calibrate"
        )
    return faults
