"""Checks at connect and before torque: are these the robot's servos, set up as its file says?"""

from __future__ import annotations

from collections.abc import Iterator

from hw_drivers.bus.bus import Pong, ServoBus
from hw_drivers.family import Family
from hw_drivers.robot.alarm_advice import describe
from hw_drivers.robot.command_lines import reboot_line, scan_line, setup_line
from hw_drivers.robot.config import JointConfig, RobotConfig
from hw_drivers.robot.joint_calibration import calibration_faults, limits_outside
from v2a.errors import BusError


def check_servos(config: RobotConfig, bus: ServoBus) -> None:
    """Compare every servo with the robot's configuration and calibration.

    Raises one BusError that lists everything missing or wrong, and what the bus has instead.
    """
    family = config.bus.family
    faults = [fault for joint in config.joints for fault in _faults(bus, config, joint)]
    if faults := faults or calibration_faults(config, bus):
        there = ", ".join(f"id {i}: {_name(family, pong)}" for i, pong in bus.scan().items())
        title = f"{config.name} on {config.bus.port} is not as configured:"
        raise BusError(
            "\n  ".join([title, *faults, f"found on the bus: {there or _nothing(config)}"])
        )


def _nothing(config: RobotConfig) -> str:
    line = scan_line(config.bus.port)
    return f"nothing at {config.bus.baud} baud; `{line}` asks at every rate"


def check_limits(config: RobotConfig, bus: ServoBus) -> None:
    """Raise BusError if a joint's limits lie beyond its servo's own limits.

    A servo refuses a goal beyond its own limits, and nobody answers a sync write, so the refusal
    would go unnoticed.
    """
    faults: list[str] = []
    for joint in config.joints:
        low, high = (bus.read(joint.id, f"{end}_position_limit") for end in ("min", "max"))
        faults += limits_outside(joint, low, high, f"servo {joint.id}'s own limits")
    if faults:
        raise BusError("\n  ".join([f"{config.name}: torque stays off:", *faults]))


def _faults(bus: ServoBus, config: RobotConfig, joint: JointConfig) -> Iterator[str]:
    who, family, model = f"{joint.name} (id {joint.id}): ", config.bus.family, joint.servo_model
    pong = bus.ping(joint.id)
    if pong is None:
        yield f"{who}no answer, expected {joint.model}; check its cable, power and id"
    elif pong.model_number != model.number:
        found = _name(family, pong)
        yield f"{who}is {found}, expected {joint.model}; correct `model`, or swap it"
    else:
        at = config.bus
        if status := bus.read(joint.id, "hardware_error_status"):
            reboot = reboot_line(at.port, at.protocol, at.baud, joint.id)
            yield f"{who}{describe(bus, family, joint.id, status, reboot)}"
        for setting in family.position_settings:
            if setting.register not in model.items:
                continue  # a model without the register has no other mode
            now = bus.read(joint.id, setting.register)
            if now != (wanted := setting.wanted(now)):
                yield (
                    f"{who}{setting.register} {now}, expected {wanted} ({setting.meaning}); "
                    f"run {setup_line(at.port, at.protocol, at.baud, joint.id)}"
                )


def _name(family: Family, pong: Pong) -> str:
    names = {model.number: name for name, model in family.models.items()}
    return names.get(pong.model_number, f"model number {pong.model_number}")
