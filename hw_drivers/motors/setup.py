"""`v2a motors setup`: gives one servo its id, its rate and the settings that v2a needs."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.registers import Model
from hw_drivers.family import PLAIN, Family, Role
from hw_drivers.motors import options
from hw_drivers.motors.find import Look, Servo, look_at_all, no_answer_message, open_bus, places
from hw_drivers.motors.settings import Change, check_settings, lock, needed_changes, write_settings
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError, PortError
from v2a.terminal import columns

_TRIES = 7  # to hear a servo that has just changed its id or rate: a second


@dataclass(frozen=True, slots=True)
class Plan:
    """The changes to make to one servo."""

    servo: Servo
    model: Model
    new_id: int
    new_baud: int
    torque_on: bool
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
        return [*first, *self.changes, *(change for change in last if change.now != change.wanted)]


@click.command()
@options.port
@click.option("--id", "new_id", type=click.IntRange(0, 253), required=True, help="Its new id.")
@click.option(
    "--baud",
    "new_baud",
    type=click.IntRange(min=1),
    default=1_000_000,
    show_default=True,
    help="Its new rate.",
)
@click.option("--from-id", type=int, help="Its id now; needed where there are several servos.")
@click.option("--from-baud", type=click.IntRange(min=1), help="Look at no other rate than this.")
@click.option("--shadow-of", type=click.IntRange(0, 252), help="The joint's servo that it copies.")
@click.option("--current-limited", is_flag=True, help="For a joint with `current_limit_a`.")
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
    looks = [*look_at_all(to_do, clock)]
    servos = [servo for found in looks for servo in found.servos]
    if not servos and not any(found.faults for found in looks):
        raise BusError(no_answer_message(to_do))
    servo = choose(looks, from_id)
    refuse_taken_id(servo, new_id, new_baud, servos)
    plan = make_plan(servo, new_id, new_baud, clock, Role(shadow_of, current_limited))
    click.echo(str(servo))
    if not plan.all_changes:
        click.echo("is already as it should be")
        return
    rows = [(name, str(now), str(wanted)) for name, now, wanted in plan.all_changes]
    click.echo("\n".join(columns(("register", "now", "new"), rows)))
    if not yes:
        click.confirm("Write this?", abort=True)
    carry_out(plan, clock)
    click.echo(f"done: id {new_id} at {new_baud} baud, read back")


def choose(looks: Sequence[Look], from_id: int | None) -> Servo:
    """The only servo found, or the one with id `from_id`. Raises BusError that lists them all."""
    servos = [servo for found in looks for servo in found.servos]
    if faults := [fault for found in looks for fault in found.faults]:
        raise BusError("\n".join(faults))
    chosen = [servo for servo in servos if from_id in (None, servo.id)]
    if len(chosen) == 1:
        return chosen[0]
    listed = "\n  ".join(map(str, servos))
    if not chosen:
        raise BusError(f"no servo has id {from_id}; found:\n  {listed}")
    advice = "connect one alone, or name it by --from-id"
    if from_id is not None:
        advice = "name the one that is meant by --from-baud or --protocol"
    raise BusError(f"expected one servo, found {len(chosen)}; {advice}:\n  {listed}")


def refuse_taken_id(servo: Servo, new_id: int, new_baud: int, servos: Sequence[Servo]) -> None:
    """Raise BusError if another servo already has the new id at the new rate."""
    others = [other for other in servos if other != servo]
    for other in others:
        if (other.id, other.place.baud) == (new_id, new_baud):
            taken = ", ".join(str(other.id) for other in others)
            raise BusError(f"id {new_id} is taken by {other}; choose another than {taken}")


def make_plan(servo: Servo, new_id: int, new_baud: int, clock: Clock, role: Role = PLAIN) -> Plan:
    """Compare the servo with what it should be in `role`.

    Raises BusError for an id, a rate or a role that its model cannot have.
    """
    with contextlib.closing(open_bus([servo], clock)) as bus:
        model, family = bus.models[servo.id], servo.place.family
        lowest, highest = model.items["id"].limits or (0, 0)
        if not lowest <= new_id <= highest:
            raise BusError(f"ids of a {model.name} go from {lowest} to {highest}, got {new_id}")
        if new_baud not in (known := baud_codes(model, family)):
            raise BusError(f"a {model.name} knows no {new_baud} baud; choose from {[*known]}")
        for asked, register in (
            (role.shadow_of is not None, "secondary_id"),
            (role.current_limited, "goal_current"),
        ):
            if asked and register not in model.items:
                raise BusError(f"a {model.name} has no {register}")
        torque_on = bool(bus.read(servo.id, "torque_enable"))
        needed = tuple(needed_changes(bus, family, servo.id, role))
        return Plan(servo, model, new_id, new_baud, torque_on, needed)


def baud_codes(model: Model, family: Family) -> dict[int, int]:
    """The model's rates in bit/s -> the values of its baud_rate register."""
    limits = model.items["baud_rate"].limits or (0, -1)
    known = family.baud_codes.items()
    return {baud: code for code, baud in known if limits[0] <= code <= limits[1]}


def carry_out(plan: Plan, clock: Clock) -> None:
    """Write the settings, then the id, then the rate; the servo moves with each of the last two.

    Raises BusError if the servo reads back anything else than the plan.
    """
    servo, family = plan.servo, plan.servo.place.family
    with contextlib.closing(open_bus([servo], clock)) as bus:
        if plan.torque_on:
            bus.write(servo.id, "torque_enable", 0)
        write_settings(bus, family, servo.id, {name: wanted for name, _, wanted in plan.changes})
        lock(bus, family, servo.id, False)
        _write_unheard(bus, servo.id, "id", plan.new_id)
    servo = replace(servo, id=plan.new_id)
    with contextlib.closing(open_bus([servo], clock)) as bus:
        _wait_for(bus, servo)
        _write_unheard(bus, servo.id, "baud_rate", plan.baud_code)
    servo = replace(servo, place=replace(servo.place, baud=plan.new_baud))
    with contextlib.closing(open_bus([servo], clock)) as bus:
        _wait_for(bus, servo)
        lock(bus, family, servo.id, True)
        check_settings(bus, servo.id, {"id": plan.new_id, "baud_rate": plan.baud_code})


def _write_unheard(bus: ServoBus, servo_id: int, name: str, raw: int) -> None:
    """Write the id or the rate. Some servos answer with the old value in force, some the new."""
    try:
        bus.write(servo_id, name, raw)
    except PortError:
        raise
    except BusError as error:  # `_wait_for` decides
        click.echo(f"note: {error}", err=True)


def _wait_for(bus: ServoBus, servo: Servo) -> None:
    for _ in range(_TRIES):
        if bus.ping(servo.id):
            return
    raise BusError(
        f"no servo answers to id {servo.id} at {servo.place.baud} baud after the change; find it: "
        f"v2a motors scan --port {servo.place.port}"
    )
