"""Whether the servos on a bus are the robot's, and set up as its file says."""

from __future__ import annotations

from collections.abc import Iterator

from hw_drivers.bus.bus import Pong, ServoBus
from hw_drivers.dynamixel.models import DRIVE_MODES
from hw_drivers.robot.config import MODELS, PROTOCOLS, JointConfig, Protocol, RobotConfig
from hw_drivers.robot.joint_calibration import calibration_faults, limits_outside
from v2a.errors import BusError


def check_servos(config: RobotConfig, bus: ServoBus) -> None:
    """Raises one BusError that lists everything missing or wrong, and what is there instead."""
    protocol = PROTOCOLS[config.bus.protocol]
    faults = [fault for joint in config.joints for fault in _faults(bus, protocol, joint)]
    if faults := faults or calibration_faults(config, bus):
        there = ", ".join(f"id {i}: {_name(protocol, pong)}" for i, pong in bus.scan().items())
        title = f"{config.name} on {config.bus.port} is not as configured:"
        raise BusError(
            "\n  ".join([title, *faults, f"found on the bus: {there or _nothing(config)}"])
        )


def _nothing(config: RobotConfig) -> str:
    port, baud = config.bus.port, config.bus.baud
    return f"nothing at {baud} baud; `v2a motors scan --port {port}` asks at every rate"


def check_limits(config: RobotConfig, bus: ServoBus) -> None:
    """Raises BusError for limits beyond the servos' own: such a goal they would refuse, and a sync
    write hears of no refusal."""
    faults: list[str] = []
    for joint in config.joints:
        low, high = (bus.read(joint.id, f"{end}_position_limit") for end in ("min", "max"))
        faults += limits_outside(joint, low, high, f"servo {joint.id}'s own limits")
    if faults:
        raise BusError("\n  ".join([f"{config.name}: torque stays off:", *faults]))


def _faults(bus: ServoBus, protocol: Protocol, joint: JointConfig) -> Iterator[str]:
    who = f"{joint.name} (id {joint.id}): "
    pong = bus.ping(joint.id)
    if pong is None:
        yield f"{who}no answer, expected {joint.model}; check its cable, power and id"
    elif pong.model_number != MODELS[joint.model].number:
        found = _name(protocol, pong)
        yield f"{who}is {found}, expected {joint.model}; correct `model`, or swap it"
    else:
        if status := bus.read(joint.id, "hardware_error_status"):
            yield f"{who}hardware error: {protocol.describe_alarms(status)}; reboot it"
        expected = protocol.position_mode
        if (mode := _mode(bus, joint, "operating_mode", expected)) != expected:
            yield f"{who}operating mode {mode}, expected {expected} (position); set it"
        if (mode := _mode(bus, joint, "drive_mode", DRIVE_MODES[0])) not in DRIVE_MODES:
            yield f"{who}drive mode {mode}, expected one of {DRIVE_MODES}; set it"


def _mode(bus: ServoBus, joint: JointConfig, name: str, default: int) -> int:
    """A servo without such a register knows only the default."""
    known = name in MODELS[joint.model].items
    return bus.read(joint.id, name) if known else default


def _name(protocol: Protocol, pong: Pong) -> str:
    names = {model.number: name for name, model in protocol.models.items()}
    return names.get(pong.model_number, f"model number {pong.model_number}")
