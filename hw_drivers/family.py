"""What a servo family is, and the table of the families that exist.

A family is one package that holds its packets, register tables, bus and virtual servo, and one
`Family` record that names them. All other code reads the record and knows no family by name.
To add a family, write such a package and add one row to `FAMILIES`.

Every family gives the same names to registers of the same meaning. Each model must have `id`,
`baud_rate`, `return_delay_time`, `min_position_limit`, `max_position_limit`, `torque_enable`,
`goal_position`, `present_position` and `hardware_error_status`. A model without `homing_offset`,
`present_input_voltage`, `present_temperature` or `present_current` simply does not offer it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from typing import Any, Final, Protocol

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import Port
from hw_drivers.bus.registers import Model
from hw_drivers.bus.wire import Parser
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.servo import VirtualServo
from v2a.clock import Clock

# `bus.protocol` in robot.yaml -> the module, imported on first use, whose FAMILY is the record.
FAMILIES: Final = {
    "dynamixel2": "hw_drivers.dynamixel.family",
    "feetech": "hw_drivers.feetech.family",
}


class MakeStatus(Protocol):
    """Builds the bytes of a servo's answer."""

    def __call__(self, packet_id: int, error: int, params: bytes = b"", /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Packets:
    """How the family builds and parses packets."""

    max_id: int
    make_ping: Callable[[int], bytes]  # (id) -> request
    make_sync_write: Callable[[int, int, Mapping[int, bytes]], bytes]  # (address, size, id -> data)
    make_status: MakeStatus
    parser: Callable[[bytes], Parser]  # (request) -> a parser of the answers to it


@dataclass(frozen=True, slots=True)
class Watchdog:
    """A register with which a servo stops by itself once it has heard no request for a while.

    Writing 0 disarms the watchdog and clears a tripped one. Writing 1 to `longest` arms it, in
    units of `unit_s`. The register reads `tripped` after the servo has stopped.
    """

    register: str
    unit_s: float
    longest: int
    tripped: int


@dataclass(frozen=True, slots=True)
class Role:
    """What robot.yaml asks of one servo beyond being a joint's only servo in position mode.

    `shadow_of` is the id of the servo whose commands this one obeys, too. `current_limited` means
    current-based position mode.
    """

    shadow_of: int | None = None
    current_limited: bool = False


PLAIN: Final = Role()


@dataclass(frozen=True, slots=True)
class Setting:
    """The bits `mask` of a register must have the value `value`. A model may lack the register.

    `also` are other values of the whole register that are right. `of_role` gives the value and its
    meaning for a servo in a role, None where the role changes nothing. `mirrors` are bits outside
    `mask` that turn the joint's direction round: either value is right, but a calibration holds for
    one only. A servo still works without a setting that is not `required`; only setup and doctor
    ask for it.
    """

    register: str
    value: int
    meaning: str
    mask: int = -1
    also: range = range(0)
    of_role: Callable[[Role], tuple[int, str] | None] = lambda _: None
    mirrors: int = 0
    required: bool = True

    def wanted(self, now: int, role: Role = PLAIN) -> int:
        """The register's correct value: `now` if that is right, else with the bits corrected."""
        value, _ = self.of_role(role) or (self.value, "")
        if now in self.also and not self.of_role(role):
            return now
        return (now & ~self.mask) | value

    def meaning_in(self, role: Role) -> str:
        """What the correct value means for a servo in this role."""
        return (self.of_role(role) or (0, self.meaning))[1]


@dataclass(frozen=True)
class Family:
    """All that general code needs to know about one servo family."""

    tables: tuple[Model, ...]  # one per model and firmware range, the newest firmware last
    bus: Callable[[Port, Clock, Mapping[int, Model], float], ServoBus]  # the last: timeout_s
    packets: Packets
    baud_codes: Mapping[int, int]  # value of the `baud_rate` register -> bit/s
    # Registers next to each other, `present_position` among them, that every cycle reads.
    cycle_registers: tuple[str, ...]
    # A servo moves to its goal no faster than this register says. Its scale is the speed's unit.
    speed_register: str
    # Above the value of this register a servo refuses a speed.
    speed_limit_register: str | None
    watchdog: Watchdog | None
    # Settings that change what a goal or a position means.
    position_settings: tuple[Setting, ...]
    # Settings that make a servo answer at once, and answer every request.
    answer_settings: tuple[Setting, ...]
    lock_register: str | None  # 1 protects the EEPROM from writes
    # Whether position = (encoder - homing_offset) within one turn, so that the offset moves the
    # seam. If not, position = encoder + homing_offset, and the seam stays where it is.
    offset_moves_seam: bool
    alarm_bits: int  # of an answer's error byte
    describe_alarms: Callable[[int], str]  # of the value of `hardware_error_status`
    virtual_servo: Callable[[Model, int], VirtualServo]  # (model, id)
    virtual_bus: Callable[[Iterable[Any]], VirtualBus[Any]]  # (this family's virtual servos)

    @cached_property
    def models(self) -> dict[str, Model]:
        """Each model's table by the model's name, for the newest firmware."""
        return {model.name: model for model in self.tables}

    @property
    def bauds(self) -> tuple[int, ...]:
        """The rates of the family in bit/s."""
        return tuple(self.baud_codes.values())

    @property
    def settings(self) -> tuple[Setting, ...]:
        """All registers that must hold, in the order in which `v2a motors setup` writes them.

        Connect, doctor, setup, jog and calibration read this table.
        """
        return (*self.answer_settings, *self.position_settings)

    @property
    def mirrors(self) -> dict[str, int]:
        """Register -> the bits that turn a joint's direction round."""
        return {setting.register: setting.mirrors for setting in self.settings if setting.mirrors}


def load_family(name: str) -> Family:
    """Import the record of the family `name`, a key of `FAMILIES`."""
    family: Family = import_module(FAMILIES[name]).FAMILY
    return family


def all_models() -> dict[str, Model]:
    """The newest register table of every model of every family, by the model's name."""
    return {model: table for name in FAMILIES for model, table in load_family(name).models.items()}
