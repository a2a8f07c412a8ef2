"""A robot's calibration file: its servos, and each joint's range in ticks.

Servos have no serial number. The homing offset and the position limits that calibration writes into
them, exact to the tick, still tell one arm from another. The file also keeps the bits that turn a
servo's direction round: with another direction, the same ticks are other angles.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import yaml
from pydantic import Field

from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family
from hw_drivers.robot.command_lines import calibrate_line
from hw_drivers.robot.config import JointConfig, RobotConfig
from v2a.config import Strict, load_yaml
from v2a.errors import BusError, ConfigError

REGISTERS = ("homing_offset", "min_position_limit", "max_position_limit")


class ServoCalibration(Strict):
    """A servo at the time of its calibration. `homing_offset` is None if it has none.

    `mirrors`: register -> the bits in it that turn the direction round. A file from before they
    were kept holds for the factory's direction.
    """

    id: int
    model_number: int
    firmware_version: int
    homing_offset: int | None = None
    min_position_limit: int
    max_position_limit: int
    mirrors: dict[str, int] = Field(default_factory=dict)


class Calibration(Strict):
    """The whole file. `joints`: joint name -> its servo."""

    robot: str
    joints: dict[str, ServoCalibration]


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write the file, whole or not at all. Raises ConfigError if it can't be written."""
    text = yaml.safe_dump(calibration.model_dump(exclude_none=True), sort_keys=False)
    unfinished = path.with_name(f"{path.name}.new")
    try:
        unfinished.write_text(f"# Written by v2a motors calibrate\n{text}")
        os.replace(unfinished, path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be written: {error.strerror}") from error


def read_servo(bus: ServoBus, family: Family, servo_id: int) -> ServoCalibration:
    """Read the servo's present values. Raises BusError if it does not answer."""
    pong = bus.ping(servo_id)
    if pong is None:
        raise BusError(f"servo {servo_id}: no answer to ping; check its cable, power and id")
    known = bus.models[servo_id].items
    registers = {name: bus.read(servo_id, name) for name in REGISTERS if name in known}
    bits = family.mirrors.items()
    return ServoCalibration(
        id=servo_id,
        model_number=pong.model_number,
        firmware_version=pong.firmware_version,
        mirrors={name: bus.read(servo_id, name) & mask for name, mask in bits if name in known},
        **registers,
    )


def read_servos(bus: ServoBus, config: RobotConfig) -> dict[str, ServoCalibration]:
    """Read every servo of the robot, by the name of its joint. A shadow is "JOINT's shadow"."""
    servos = {servo.name: servo.id for servo in config.servos}
    return {name: read_servo(bus, config.bus.family, i) for name, i in servos.items()}


def check_calibration(
    stored: Mapping[str, ServoCalibration], found: Mapping[str, ServoCalibration]
) -> list[str]:
    """List the differences between the servos `found` and `stored`, both by joint name."""
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
        expected, is_now = _registers(stored[name]), _registers(found[name])
        different = [
            f"{key} is {now}, calibrated with {expected.get(key, 0)}"
            for key, now in is_now.items()
            if now != expected.get(key, 0)
        ]
        if different:
            faults.append(f"{name} (id {found[name].id}): {', '.join(different)}")
    return sorted(faults)


def _registers(servo: ServoCalibration) -> dict[str, int | None]:
    """All values by name. A bit that is not stored is 0, as from the factory."""
    directions = {f"{name} (direction)": bits for name, bits in servo.mirrors.items()}
    return servo.model_dump(exclude={"mirrors"}) | directions


def check_ranges(
    joints: tuple[JointConfig, ...], stored: Mapping[str, ServoCalibration]
) -> list[str]:
    """List the limits of robot.yaml that lie outside the measured range."""
    faults: list[str] = []
    for joint in joints:
        if servo := stored.get(joint.name):
            low, high = servo.min_position_limit, servo.max_position_limit
            faults += limits_outside(joint, low, high, "the calibrated range")
    return faults


def limits_outside(joint: JointConfig, low: int, high: int, what: str) -> Iterator[str]:
    """List the limits of the joint that lie outside the ticks `low`..`high`, called `what`."""
    for key, limit_rad in (("lower_rad", joint.lower_rad), ("upper_rad", joint.upper_rad)):
        tick = round(joint.zero_tick + joint.direction * limit_rad / joint.rad_per_tick)
        if not low - 1 <= tick <= high + 1:  # radians in the file are rounded
            yield (
                f"{joint.name}: {key} {limit_rad} is tick {tick}, outside {what} "
                f"{low}..{high}; narrow the limit, or correct zero_tick"
            )


def calibration_faults(config: RobotConfig, bus: ServoBus) -> list[str]:
    """List the differences between the servos on `bus` and the robot's calibration file.

    The last line says what to do. Empty without differences, or without a calibration file.
    """
    if config.calibration is None:
        return []
    try:
        stored = load_yaml(config.calibration, Calibration)
    except ConfigError as error:
        return [f"{error}; run {calibrate_line(config.calibration)}"]
    found = read_servos(bus, config)
    faults = check_calibration(stored.joints, found) or check_ranges(config.joints, stored.joints)
    if faults:
        faults.append(
            f"{config.calibration} is the calibration of {stored.robot!r}: of another arm, or from "
            f"before a change; name the right file, or run {calibrate_line(config.calibration)}"
        )
    return faults
