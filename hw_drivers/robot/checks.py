"""Checks at connect and before torque: are these the robot's servos, set up as its file says?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from hw_drivers.bus.bus import Pong, ServoBus
from hw_drivers.bus.registers import Model, find_model
from hw_drivers.family import Family
from hw_drivers.robot.alarm_advice import describe
from hw_drivers.robot.command_lines import reboot_line, scan_line, setup_line
from hw_drivers.robot.config import RobotConfig, ServoConfig
from hw_drivers.robot.joint_calibration import calibration_faults, limits_outside
from hw_drivers.robot.torque import Hold
from v2a.errors import BusError, PortError


def check_servos(config: RobotConfig, bus: ServoBus) -> None:
    """Compare every servo with the robot's configuration and calibration.

    Raises one BusError that lists everything missing or wrong, and what the bus has instead.
    """
    family = config.bus.family
    faults = [fault for servo in config.servos for fault in _faults(bus, config, servo)]
    if faults := faults or calibration_faults(config, bus) or _eavesdroppers(bus, config):
        there = ", ".join(f"id {i}: {_name(family, pong)}" for i, pong in bus.scan().items())
        title = f"{config.name} on {config.bus.port} is not as configured:"
        raise BusError(
            "\n  ".join([title, *faults, f"found on the bus: {there or _nothing(config)}"])
        )


def _nothing(config: RobotConfig) -> str:
    line = scan_line(config.bus.port)
    return f"nothing at {config.bus.baud} baud; `{line}` asks at every rate"


def check_limits(config: RobotConfig, holds: Sequence[Hold]) -> None:
    """Raise BusError if a joint's limits lie beyond its servo's own limits, which `holds` has.

    A servo refuses a goal beyond its own limits, and nobody answers a sync write, so the refusal
    would go unnoticed.
    """
    faults: list[str] = []
    of_id = {hold.id: hold for hold in holds}
    for joint in config.joints:
        for servo in joint.servos:
            own = of_id[servo.id]
            what = f"servo {servo.id}'s own limits"
            faults += limits_outside(joint, own.low, own.high, what)
    if faults:
        raise BusError("\n  ".join([f"{config.name}: torque stays off:", *faults]))


def _faults(bus: ServoBus, config: RobotConfig, servo: ServoConfig) -> Iterator[str]:
    who, family = f"{servo.name} (id {servo.id}): ", config.bus.family
    pong = bus.ping(servo.id)
    if pong is None:
        yield f"{who}no answer, expected {servo.model.name}; check its cable, power and id"
    elif pong.model_number != servo.model.number:
        found = _name(family, pong)
        yield f"{who}is {found}, expected {servo.model.name}; correct `model`, or swap it"
    elif lacking := _lacking(family, servo.model, pong):
        yield (
            f"{who}its firmware {pong.firmware} has no {', '.join(lacking)}; "
            "update it with the vendor's tool"
        )
    else:
        try:
            yield from (f"{who}{fault}" for fault in _wrong_registers(bus, config, servo))
        except PortError:
            raise
        except BusError as error:
            at = config.bus
            yield (
                f"{who}answers a ping, but: {error}; if it answers no read at all, run "
                f"{setup_line(at.port, at.protocol, at.baud, servo.id, role=servo.role)}"
            )


def _lacking(family: Family, model: Model, pong: Pong) -> list[str]:
    """The registers of the model that this servo's firmware does not have yet."""
    is_now = find_model(family.tables, pong.model_number, pong.firmware_version)
    return [name for name in model.items if is_now and name not in is_now.items]


def _wrong_registers(bus: ServoBus, config: RobotConfig, servo: ServoConfig) -> Iterator[str]:
    family, at = config.bus.family, config.bus
    if status := bus.read(servo.id, "hardware_error_status"):
        reboot = reboot_line(at.port, at.protocol, at.baud, servo.id)
        yield describe(bus, family, servo.id, status, reboot)
    if over := _over_current(bus, servo):
        yield over
    for setting in family.settings:
        if setting.register not in servo.model.items or not setting.required:
            continue  # a model without the register has no other mode
        now = bus.read(servo.id, setting.register)
        if now != (wanted := setting.wanted(now, servo.role)):
            yield (
                f"{setting.register} {now}, expected {wanted} ({setting.meaning_in(servo.role)}); "
                f"run {setup_line(at.port, at.protocol, at.baud, servo.id, role=servo.role)}"
            )


def _over_current(bus: ServoBus, servo: ServoConfig) -> str:
    """What is wrong with `current_limit_a`; '' if nothing is."""
    if (wanted := servo.goal_current) is None:
        return ""
    own, scale = bus.read(servo.id, "current_limit"), servo.model.items["current_limit"].scale
    if wanted <= own:
        return ""
    return (
        f"current_limit_a {servo.current_limit_a:g} is above the servo's own limit of "
        f"{own * scale:.3g} A (current_limit {own}); lower current_limit_a, or raise that register"
    )


def _eavesdroppers(bus: ServoBus, config: RobotConfig) -> list[str]:
    """List the servos that robot.yaml does not name and that obey the id of one of its joints."""
    # All models of a family have this register at the same address.
    if (item := config.joints[0].servo_model.items.get("secondary_id")) is None:
        return []
    at, named = config.bus, {servo.id for servo in config.servos}
    joint_of = {joint.id: joint.name for joint in config.joints}
    obeyed = {i: bus.read_item(i, "secondary_id", item) for i in bus.scan() if i not in named}
    return [
        f"servo {servo_id} is no joint of this robot, but obeys the id of {joint_of[obeys]} "
        f"(secondary_id {obeys}); if it drives that joint, too, name it there as shadow_id: "
        f"{servo_id}; if not, run {setup_line(at.port, at.protocol, at.baud, servo_id)}"
        for servo_id, obeys in obeyed.items()
        if obeys in joint_of
    ]


def _name(family: Family, pong: Pong) -> str:
    names = {model.number: name for name, model in family.models.items()}
    return names.get(pong.model_number, f"model number {pong.model_number}")
