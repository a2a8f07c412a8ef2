"""Writing to the servos' EEPROM: opened for it, read back, locked again."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.registers import Model
from hw_drivers.dynamixel.models import DRIVE_MODES
from hw_drivers.feetech.models import MULTI_TURN_PHASE_BIT
from hw_drivers.robot.config import PROTOCOLS
from v2a.errors import BusError

# What v2a needs besides position mode: answers at once, and to every request.
_ANSWER_TO_ALL = {"dynamixel2": 2, "feetech": 1}


def setup_line(port: str, protocol: str, baud: int, servo_id: int) -> str:
    """The command that gives a servo the settings it should have, and no other id or rate."""
    where = f"--port {port} --protocol {protocol} --from-baud {baud} --from-id {servo_id}"
    return f"v2a motors setup {where} --baud {baud} --id {servo_id}"


class Change(NamedTuple):
    """A register that is to be written."""

    name: str
    now: int
    wanted: int


def read_settings(bus: ServoBus, servo_id: int, names: Mapping[str, object]) -> dict[str, int]:
    """The raw values of these registers."""
    return {name: bus.read(servo_id, name) for name in names}


def wanted_settings(protocol: str, model: Model, now: Mapping[str, int]) -> dict[str, int]:
    """The registers that v2a needs to have a certain value -> that value. `now`: what the servo
    has in `drive_mode` and `phase`, of which one bit each counts."""
    wanted = {
        "return_delay_time": 0,
        "status_return_level": _ANSWER_TO_ALL[protocol],
        "operating_mode": PROTOCOLS[protocol].position_mode,
    }
    if now.get("drive_mode", DRIVE_MODES[0]) not in DRIVE_MODES:
        wanted["drive_mode"] = now["drive_mode"] & 1  # the direction stays
    if now.get("phase", 0) & MULTI_TURN_PHASE_BIT:
        wanted["phase"] = now["phase"] & ~MULTI_TURN_PHASE_BIT
    return {name: raw for name, raw in wanted.items() if name in model.items}


def needed_changes(bus: ServoBus, protocol: str, servo_id: int) -> list[Change]:
    """What of the servo's settings is not as v2a needs it."""
    model = bus.models[servo_id]
    bits = [name for name in ("drive_mode", "phase") if name in model.items]
    wanted = wanted_settings(protocol, model, {name: bus.read(servo_id, name) for name in bits})
    return changes(bus, servo_id, wanted)


def changes(bus: ServoBus, servo_id: int, wanted: Mapping[str, int]) -> list[Change]:
    """Those of `wanted` that the servo does not have."""
    now = read_settings(bus, servo_id, wanted)
    return [Change(name, now[name], raw) for name, raw in wanted.items() if now[name] != raw]


def write_settings(bus: ServoBus, servo_id: int, wanted: Mapping[str, int]) -> None:
    """Write `wanted` with torque off and read it back. Raises BusError where a value did not take:
    Feetech servos refuse without a word."""
    with unlocked(bus, servo_id):
        for name, raw in wanted.items():
            bus.write(servo_id, name, raw)
    check_settings(bus, servo_id, wanted)


def check_settings(bus: ServoBus, servo_id: int, wanted: Mapping[str, int]) -> None:
    """Raises BusError that lists every register of `wanted` that has another value."""
    if wrong := changes(bus, servo_id, wanted):
        found = ", ".join(f"{name} is {now}, expected {raw}" for name, now, raw in wrong)
        raise BusError(f"servo {servo_id}: read back: {found}; check its power, then try again")


@contextlib.contextmanager
def unlocked(bus: ServoBus, servo_id: int) -> Iterator[None]:
    """The servo's EEPROM open for writing, in here; a Dynamixel's is so whenever torque is off."""
    has_lock = "lock" in bus.models[servo_id].items
    if has_lock:
        bus.write(servo_id, "lock", 0)
    try:
        yield
    finally:
        if has_lock:
            bus.write(servo_id, "lock", 1)
