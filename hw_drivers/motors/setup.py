"""`v2a motors setup`: gives one servo its id, its rate and the settings that v2a needs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

import click

from hw_drivers.bus.registers import Model
from hw_drivers.family import PLAIN, Family, Role
from hw_drivers.motors import options
from hw_drivers.motors.find import (
    Look,
    Servo,
    look_everywhere,
    no_answer_message,
    notes,
    open_bus,
    places,
)
from hw_drivers.motors.settings import (
    OPEN,
    Change,
    check_settings,
    lock,
    lock_of,
    needed_changes,
    write_settings,
    write_unheard,
)
from hw_drivers.robot.command_lines import scan_line
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError
from v2a.signals import signals_held
from v2a.terminal import columns

ANSWER_LEVEL: Final = "status_return_level"
_TRIES: Final = 7  # to hear a servo that has just changed its id or rate: a second


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes to make to one servo."""

    servo: Servo
    model: Model
    new_id: int
    new_baud: int
    torque_on: bool
    unlocked: bool  # its EEPROM was left open
    changes: tuple[Change, ...]

    @property
    def baud_code(self) -> int:
        """The value of the baud_rate register for the new rate."""
        return baud_codes(self.model, self.servo.place.family)[self.new_baud]

    @property
    def all_changes(self) -> list[Change]:
        """The changes, torque, id and rate included, in the order of writing."""
        servo = self.servo
        first = [Change("torque_enable", 1, 0)] if self.torque_on else []
        last = [
            Change("id", servo.id, self.new_id),
            Change("baud_rate", servo.place.baud, self.new_baud),
        ]
        moves = [change for change in last if change.now != change.wanted]
        end = [Change("lock", 0, 1)] if self.unlocked else []
        return [*first, *self.changes, *moves, *end]


@click.command()
@options.port
@click.option("--id", "new_id", type=options.SERVO_ID, required=True, help="Its new id.")
@click.option(
    "--baud",
    "new_baud",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="Its new rate.",
)
@click.option(
    "--from-id",
    type=options.SERVO_ID,
    help="Its id now; needed where there are several servos.",
)
@click.option("--from-baud", type=click.IntRange(min=1), help="Look at no other rate than this.")
@click.option(
    "--shadow-of",
    type=options.SERVO_ID,
    metavar="ID",
    help="Let it obey the commands to that servo, too: two servos drive one joint.",
)
@click.option(
    "--current-limited",
    is_flag=True,
    help="Current-based position mode, for a joint with `current_limit_a`: a gripper.",
)
@options.protocol
@options.yes
def setup(
    port: str,
    new_id: int,
    new_baud: int,
    from_id: int | None,
    from_baud: int | None,
    shadow_of: int | None,
    current_limited: bool,
    protocol: str | None,
    yes: bool,
) -> None:
    """Give a servo its id and its rate, and the settings that v2a needs: it answers at once, it
    answers every request, and it is in position mode.

    The command shows its plan before it writes, and reads back what it wrote. Torque goes off: the
    servo lets go of what it holds.
    """
    clock = MonotonicClock()
    to_do = places(port, protocol, from_baud)
    looks = look_everywhere(to_do, clock)
    for note in notes(looks):
        click.echo(f"note: {note}", err=True)
    if not any(found.servos or found.faults for found in looks):
        raise BusError(no_answer_message([look.place for look in looks if not look.cut_short]))
    servo = replace(choose(looks, from_id), role=Role(shadow_of, current_limited))
    refuse_taken_id(servo, new_id, new_baud, looks)
    click.echo(str(servo))
    if servo.mute:
        click.echo("it answers pings, and no reads: that changes first, to read the rest")
        if not yes:
            click.confirm("Make it answer?", abort=True)
        make_it_answer(servo, clock)
    plan = make_plan(servo, new_id, new_baud, clock)
    if not plan.all_changes:
        click.echo("is already as it should be")
        return
    rows = [(name, str(now), str(wanted)) for name, now, wanted in plan.all_changes]
    click.echo("\n".join(columns(("register", "now", "new"), rows)))
    if not yes:
        click.confirm("Write this?", abort=True)
    with signals_held():  # it takes seconds, and half of it leaves a servo hard to find
        carry_out(plan, clock)
    click.echo(f"done: id {new_id} at {new_baud} baud, read back")


def choose(looks: Sequence[Look], from_id: int | None) -> Servo:
    """The only servo found, or the one with id `from_id`.

    Raises BusError that lists them all, or that names what is wrong with the one.
    """
    servos = [servo for found in looks for servo in found.servos]
    chosen = [servo for servo in servos if from_id in (None, servo.id)]
    broken = [
        str(fault)
        for found in looks
        for fault in found.faults
        if from_id is None or fault.concerns(from_id)
    ]
    if broken:
        raise BusError("\n".join(broken))
    if len(chosen) == 1:
        return chosen[0]
    listed = "\n  ".join(map(str, servos))
    if not chosen:
        raise BusError(f"no servo has id {from_id}; found:\n  {listed}")
    advice = "connect one alone, or name it by --from-id"
    if from_id is not None:
        advice = "name the one that is meant by --from-baud or --protocol"
    raise BusError(f"expected one servo, found {len(chosen)}; {advice}:\n  {listed}")


def refuse_taken_id(servo: Servo, new_id: int, new_baud: int, looks: Sequence[Look]) -> None:
    """Raise BusError if another servo already has the new id at the new rate."""
    me = replace(servo, role=PLAIN)
    others = [other for found in looks for other in found.servos if other != me]
    taken = ", ".join(str(other.id) for other in others)
    for other in others:
        if (other.id, other.place.baud) == (new_id, new_baud):
            raise BusError(f"id {new_id} is taken by {other}; choose another than {taken}")
    for found in looks:
        if found.place.baud == new_baud:
            for fault in found.faults:
                if fault.servo_id == new_id:
                    raise BusError(f"id {new_id} is taken: {fault}")


def make_it_answer(servo: Servo, clock: Clock) -> None:
    """Write the settings that make a servo answer to one that answers no reads.

    Its model, which a ping tells, says where they are. Raises BusError if it stays silent.
    """
    family = servo.place.family
    with contextlib.closing(open_bus([servo], clock)) as bus, signals_held():
        heard = [
            write_unheard(bus, servo.id, setting.register, setting.value)
            for setting in family.answer_settings
            if setting.register == ANSWER_LEVEL
        ]
        try:
            bus.read(servo.id, ANSWER_LEVEL)
        except BusError as error:
            raise BusError(f"{servo}: still answers no reads: {'; '.join(heard)}") from error


def make_plan(servo: Servo, new_id: int, new_baud: int, clock: Clock) -> Plan:
    """Compare the servo with what it should be in its role.

    Raises BusError for an id, a rate or a role that its model cannot have.
    """
    with contextlib.closing(open_bus([servo], clock)) as bus:
        model, family = bus.models[servo.id], servo.place.family
        lowest, highest = model.items["id"].limits or (0, 0)
        if not lowest <= new_id <= highest:
            raise BusError(f"ids of a {model.name} go from {lowest} to {highest}, got {new_id}")
        if new_baud not in (known := baud_codes(model, family)):
            raise BusError(f"a {model.name} knows no {new_baud} baud; choose from {[*known]}")
        refuse_role(servo, model)
        torque_on = bool(bus.read(servo.id, "torque_enable"))
        needed = tuple(needed_changes(bus, family, servo.id, servo.role))
        name = lock_of(bus, family, servo.id)
        unlocked = name is not None and not bus.read(servo.id, name)
        return Plan(servo, model, new_id, new_baud, torque_on, unlocked, needed)


def refuse_role(servo: Servo, model: Model) -> None:
    """Raise BusError if the model cannot be a shadow, or limit its current."""
    role = servo.role
    needs = {"secondary_id": role.shadow_of is not None, "goal_current": role.current_limited}
    if lacks := [name for name, needed in needs.items() if needed and name not in model.items]:
        raise BusError(f"a {model.name} has no {' and no '.join(lacks)}")


def baud_codes(model: Model, family: Family) -> dict[int, int]:
    """The model's rates in bit/s -> the values of its baud_rate register."""
    limits = model.items["baud_rate"].limits or (0, -1)
    known = family.baud_codes.items()
    return {baud: code for code, baud in known if limits[0] <= code <= limits[1]}


def carry_out(plan: Plan, clock: Clock) -> None:
    """Write the settings, then the id, then the rate; the servo moves with each of the last two.

    The EEPROM is locked at the end, however that comes and wherever the servo is by then. Raises
    BusError if the servo reads back anything else than the plan.
    """
    before = plan.servo
    renamed = replace(before, id=plan.new_id)
    moved = replace(renamed, place=replace(before.place, baud=plan.new_baud))
    try:
        _write_in_place(plan, clock)
        if renamed != before:
            _move(before, renamed, "id", plan.new_id, clock)
        if moved != renamed:
            _move(renamed, moved, "baud_rate", plan.baud_code, clock)
    finally:
        _lock_wherever([moved, renamed, before], plan.model, clock)
    family = before.place.family
    with contextlib.closing(open_bus([moved], clock)) as bus:
        wanted = {name: raw for name, _, raw in plan.changes}
        check_settings(bus, moved.id, wanted | {"id": moved.id, "baud_rate": plan.baud_code})
        if name := lock_of(bus, family, moved.id):
            check_settings(bus, moved.id, {name: 1})


def _write_in_place(plan: Plan, clock: Clock) -> None:
    """Write the settings at the old id and rate, the answer level first: the others need it."""
    servo = plan.servo
    wanted = {name: raw for name, _, raw in plan.changes}
    first = {name: raw for name, raw in wanted.items() if name == ANSWER_LEVEL}
    with contextlib.closing(open_bus([servo], clock)) as bus:
        if plan.torque_on:
            heard = write_unheard(bus, servo.id, "torque_enable", 0)
            check_settings(bus, servo.id, {"torque_enable": 0}, [heard] if heard else [])
        if wanted:
            write_settings(bus, servo.place.family, servo.id, first | wanted)


def _move(now: Servo, then: Servo, register: str, raw: int, clock: Clock) -> None:
    """Write the id or the rate, and wait for the servo where it is then."""
    with contextlib.closing(open_bus([now], clock)) as bus:
        lock(bus, now.place.family, now.id, False)
        heard = write_unheard(bus, now.id, register, raw)
    with contextlib.closing(open_bus([then], clock)) as bus:
        if any(bus.ping(then.id) for _ in range(_TRIES)):
            return
    raise BusError(
        f"no servo answers to id {then.id} at {then.place.baud} baud after the change"
        f"{f' ({heard})' if heard else ''}; find it: {scan_line(then.place.port)}"
    )


def _lock_wherever(servos: Sequence[Servo], model: Model, clock: Clock) -> None:
    """Lock the EEPROM where the servo answers now. If it answers nowhere, stderr says so."""
    family = servos[0].place.family
    if family.lock_register not in model.items:
        return
    for servo in dict.fromkeys(servos):
        try:
            with contextlib.closing(open_bus([servo], clock)) as bus:
                if bus.ping(servo.id):
                    lock(bus, family, servo.id, True)
                    return
        except BusError as error:
            click.echo(f"note: {error}", err=True)
    click.echo(f"warning: {OPEN.format(servos[0].id)}", err=True)
