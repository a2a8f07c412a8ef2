"""`v2a motors release`: switches torque off, and says which servos confirmed it."""

from __future__ import annotations

import contextlib
import sys

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import SerialPort
from hw_drivers.bus.registers import Model
from hw_drivers.motors import options
from hw_drivers.motors.find import TIMEOUT_S, Place, notes
from hw_drivers.motors.where import Where
from hw_drivers.robot.torque import torque_off
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError
from v2a.signals import signals_held

CUT_THE_POWER = "cut the motors' power"


@click.command()
@options.where
@click.option("--id", "ids", type=options.SERVO_ID, multiple=True, help="Only this servo.")
@options.yes
def release(where: Where, ids: tuple[int, ...], yes: bool) -> None:
    """Switch torque off in all joints of ROBOT.YAML, or in all servos at --port.

    The command says first what may fall. On a terminal it then waits for your yes, unless no servo
    holds torque. Each servo is asked afterwards whether torque is off. The exit code is 6 if one
    does not confirm it: cut the motors' power then.
    """
    clock = MonotonicClock()
    place, models, strange = _servos(where, ids, clock)
    unconfirmed = dict(strange)
    if models:
        port = SerialPort(place.port, place.baud)
        with contextlib.closing(place.family.bus(port, clock, models, TIMEOUT_S)) as bus:
            _announce(bus, where, yes)
            with signals_held():
                faults = torque_off(bus, tuple(models), {})
            unconfirmed |= {servo_id: str(fault) for servo_id, fault in faults.items()}
    for servo_id in sorted({*models, *unconfirmed}):
        why = unconfirmed.get(servo_id)
        said = f"NOT CONFIRMED: {why}" if why else "torque is off"
        click.echo(f"{where.name(servo_id)}: {said}")
    if unconfirmed:
        named = ", ".join(where.name(servo_id) for servo_id in unconfirmed)
        raise BusError(f"torque may still be on in {named}: {CUT_THE_POWER}")


def _servos(
    where: Where, ids: tuple[int, ...], clock: Clock
) -> tuple[Place, dict[int, Model], dict[int, str]]:
    """The servos to release: their place, id -> model, and id -> why it can't be released.

    The joints of a robot.yaml are taken as it has them, without a search: this must work in a
    hurry, and for a servo that answers no ping just now.
    """
    if where.protocol is not None and where.baud is not None and where.joints:
        place = Place(where.port, where.protocol, where.baud)
        wanted = [servo for servo in where.servos if not ids or servo.id in ids]
        if not wanted:
            raise BusError(f"{where.robot_yaml}: no joint has id {', '.join(map(str, ids))}")
        return place, {servo.id: servo.model for servo in wanted}, {}
    found = where.find(clock)
    for note in notes([found]):
        click.echo(f"note: {note}", err=True)
    servos = [servo for servo in found.servos if not ids or servo.id in ids]
    models = {servo.id: servo.model for servo in servos if servo.model}
    strange = {
        s.id: f"{s.model_name} is not known, nor where it keeps its torque"
        for s in servos
        if not s.model
    }
    silent = dict.fromkeys({*ids} - {s.id for s in servos}, "it does not answer")
    broken = {f.servo_id: f.found for f in found.faults if f.servo_id is not None}
    return found.place, models, strange | silent | broken


def _announce(bus: ServoBus, where: Where, yes: bool) -> None:
    """Say what may fall, and on a terminal ask before it does."""
    holding = []
    for servo_id in bus.models:
        try:
            if bus.read(servo_id, "torque_enable"):
                holding.append(where.name(servo_id))
        except BusError:
            holding.append(f"{where.name(servo_id)}, which does not answer,")
    if not holding:
        return
    click.echo(f"Torque goes off in {', '.join(holding)}: what these joints hold up may fall.")
    if not yes and sys.stdin.isatty():
        click.confirm("Hold the arm. Ready?", abort=True)
