"""Reads a servo's settings, and writes them to its EEPROM: unlock, write, lock, read back."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.registers import Model
from hw_drivers.family import PLAIN, Family, Role
from v2a.errors import BusError, PortError


class Change(NamedTuple):
    """A register to write: its value `now` and the value `wanted`."""

    name: str
    now: int
    wanted: int


def read_settings(bus: ServoBus, servo_id: int, names: Mapping[str, object]) -> dict[str, int]:
    """Read the registers `names`: register -> raw value."""
    return {name: bus.read(servo_id, name) for name in names}


def wanted_settings(
    family: Family, model: Model, now: Mapping[str, int], role: Role = PLAIN
) -> dict[str, int]:
    """The registers that v2a needs, and their correct values, given the values `now`.

    Registers that the model lacks, or that are missing in `now`, are left out.
    """
    return {
        setting.register: setting.wanted(now[setting.register], role)
        for setting in family.settings
        if setting.register in model.items and setting.register in now
    }


def needed_changes(
    bus: ServoBus, family: Family, servo_id: int, role: Role = PLAIN
) -> list[Change]:
    """The changes that give the servo the settings that v2a needs."""
    model = bus.models[servo_id]
    names = [s.register for s in family.settings if s.register in model.items]
    now = {name: bus.read(servo_id, name) for name in names}
    wanted = wanted_settings(family, model, now, role)
    return [Change(name, now[name], raw) for name, raw in wanted.items() if now[name] != raw]


def changes(bus: ServoBus, servo_id: int, wanted: Mapping[str, int]) -> list[Change]:
    """The changes from what the servo has to the values `wanted`."""
    now = read_settings(bus, servo_id, wanted)
    return [Change(name, now[name], raw) for name, raw in wanted.items() if now[name] != raw]


def write_settings(bus: ServoBus, family: Family, servo_id: int, wanted: Mapping[str, int]) -> None:
    """Write `wanted` with torque off, and judge by reading it back.

    A servo may answer no writes (status return level), and Feetech servos refuse silently. Raises
    BusError if a register kept another value.
    """
    with unlocked(bus, family, servo_id):
        heard = [write_unheard(bus, servo_id, name, raw) for name, raw in wanted.items()]
    check_settings(bus, servo_id, wanted, [fault for fault in heard if fault])


def write_unheard(bus: ServoBus, servo_id: int, name: str, raw: int) -> str:
    """Write a register. Returns what the servo said against it, or that it said nothing; '' if all
    is well. Reading back decides. Raises PortError."""
    try:
        bus.write(servo_id, name, raw)
    except PortError:
        raise
    except BusError as error:
        return str(error)
    return ""


def check_settings(
    bus: ServoBus, servo_id: int, wanted: Mapping[str, int], heard: Sequence[str] = ()
) -> None:
    """Raise BusError that lists every register whose value is not the one in `wanted`.

    `heard` is what the servo said to the writes.
    """
    if wrong := changes(bus, servo_id, wanted):
        found = ", ".join(f"{name} is {now}, expected {raw}" for name, now, raw in wrong)
        said = f" ({'; '.join(heard)})" if heard else ""
        raise BusError(
            f"servo {servo_id}: read back: {found}{said}; check its power, then try again"
        )


@contextlib.contextmanager
def unlocked(bus: ServoBus, family: Family, servo_id: int) -> Iterator[None]:
    """Inside this context the servo's EEPROM may be written. Torque must be off.

    The EEPROM is locked again however the context ends. If that fails, a line on stderr says so.
    """
    if lock_of(bus, family, servo_id) is None:
        yield
        return
    try:
        lock(bus, family, servo_id, False)
        yield
    except BaseException:
        try:
            lock(bus, family, servo_id, True)
        except BusError as error:
            click.echo(f"warning: {OPEN.format(servo_id)}: {error}", err=True)
        raise
    lock(bus, family, servo_id, True)


OPEN: Final = "the EEPROM of servo {} may still be unlocked; run the same command again"


def lock_of(bus: ServoBus, family: Family, servo_id: int) -> str | None:
    """The register that locks the servo's EEPROM; None if it has no lock."""
    name = family.lock_register
    return name if name is not None and name in bus.models[servo_id].items else None


def lock(bus: ServoBus, family: Family, servo_id: int, locked: bool) -> None:
    """Lock or unlock the servo's EEPROM, if it has a lock. Raises BusError if it did not change."""
    if name := lock_of(bus, family, servo_id):
        heard = write_unheard(bus, servo_id, name, int(locked))
        check_settings(bus, servo_id, {name: int(locked)}, [heard] if heard else [])
