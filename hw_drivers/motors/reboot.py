"""`v2a motors reboot`: restarts servos, which ends a hardware error once its cause is gone."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Final

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.motors import options
from hw_drivers.motors.find import Look, Servo, notes, open_bus
from hw_drivers.motors.where import Where
from hw_drivers.robot.alarm_advice import advice, read_volts
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError, PortError

_SETTLE_S: Final = 0.5  # a Dynamixel answers again about 0.3 s after a reboot
_TRIES: Final = 10


@click.command()
@options.where
@click.argument("joints", metavar="[JOINT]...", nargs=-1)
@click.option("--id", "ids", type=options.SERVO_ID, multiple=True, help="Which servo.")
@options.yes
def reboot(where: Where, joints: tuple[str, ...], ids: tuple[int, ...], yes: bool) -> None:
    """Restart the servos of JOINTs of ROBOT.YAML, or the servos --id at --port.

    Without a JOINT and an --id, the command takes the servos that report an alarm. A restart
    switches torque off: what the joint holds up may fall. Remove the cause of an alarm first. The
    exit code is 6 if an alarm is still there afterwards, or a servo does not answer.
    """
    clock = MonotonicClock()
    wanted = where.ids(joints, ids)
    found = where.find(clock)
    for note in notes([found]):
        click.echo(f"note: {note}", err=True)
    servos, faults = _pick(where, found, wanted)
    if servos:
        with contextlib.closing(open_bus(servos, clock)) as bus:
            faults += _restart_all(bus, where, servos, everyone=not wanted, yes=yes, clock=clock)
    if faults:
        raise BusError("\n".join(faults))


def _pick(where: Where, found: Look, wanted: Sequence[int]) -> tuple[list[Servo], list[str]]:
    """The servos to restart, and why others can't be."""
    there = {servo.id: servo for servo in found.servos}
    broken = {i: str(fault) for fault in found.faults for i in there if fault.concerns(i)}
    faults = [
        f"{where.name(servo_id)}: no answer; check its cable, power and id"
        for servo_id in wanted
        if servo_id not in there
    ]
    servos = [servo for servo_id, servo in there.items() if not wanted or servo_id in wanted]
    faults += [f"{where.name(s.id)}: {broken[s.id]}" for s in servos if s.id in broken]
    faults += [f"{where.name(s.id)}: {s.model_name} is not known" for s in servos if not s.model]
    return [s for s in servos if s.model and s.id not in broken], faults


def _restart_all(
    bus: ServoBus, where: Where, servos: Sequence[Servo], *, everyone: bool, yes: bool, clock: Clock
) -> list[str]:
    """Restart the servos after a yes. Returns what is still wrong, one line for each servo."""
    alarms = {servo.id: _alarms(bus, servo) for servo in servos}
    if everyone:
        servos = [servo for servo in servos if alarms[servo.id]]
    if not servos:
        click.echo("no servo reports an alarm; name one to restart it anyway")
        return []
    for servo in servos:
        click.echo(f"{where.name(servo.id)}: {alarms[servo.id] or 'no alarm'}")
    click.echo("A restart switches torque off: what these joints hold up may fall.")
    if not yes:
        click.confirm("Restart?", abort=True)
    return [fault for servo in servos if (fault := _restart(bus, where, servo, clock))]


def _restart(bus: ServoBus, where: Where, servo: Servo, clock: Clock) -> str:
    """Restart one servo and wait for it. Returns what is wrong then; '' if nothing is."""
    name = where.name(servo.id)
    try:
        bus.reboot(servo.id)
    except PortError:
        raise
    except BusError as error:  # its answer may be lost in the restart
        click.echo(f"note: {error}", err=True)
    clock.sleep_until_ns(clock.now_ns() + round(_SETTLE_S * 1e9))
    if not any(bus.ping(servo.id) for _ in range(_TRIES)):
        return f"{name}: does not answer after the restart; cut its power for a moment"
    alarms = _alarms(bus, servo)
    if not alarms:
        click.echo(f"{name}: restarted, no alarm; torque is off")
        return ""
    again = "cut its power for a moment if it stays"
    return f"{name}: still {alarms}; {advice(alarms, again, read_volts(bus, servo.id))}"


def _alarms(bus: ServoBus, servo: Servo) -> str:
    """The servo's alarms in words; '' without one, and why if it can't be read."""
    try:
        return servo.place.family.describe_alarms(bus.read(servo.id, "hardware_error_status"))
    except PortError:
        raise
    except BusError as error:
        return f"alarms not read: {error}"
