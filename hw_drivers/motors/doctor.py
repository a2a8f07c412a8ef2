"""`v2a motors doctor`: says what is wrong with a bus, and which command fixes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any, Final

import click
from serial.tools import list_ports

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import SerialPort, shorten_latency_timer, stable_path
from hw_drivers.motors import options
from hw_drivers.motors.cycle_time import CYCLES, Cycles, bars, histogram, measure
from hw_drivers.motors.doctor_checks import (
    Adapter,
    Finding,
    Registers,
    check_faults,
    check_latency_timer,
    check_name,
    check_places,
    judge_servos,
    registers_to_read,
)
from hw_drivers.motors.doctor_timing import check_answers, check_headroom, check_timing
from hw_drivers.motors.find import (
    TIMEOUT_S,
    Look,
    Servo,
    look_everywhere,
    no_answer_message,
    places,
)
from hw_drivers.motors.recording import RecordingPort
from hw_drivers.motors.where import Where
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError, PortError
from v2a.option_types import FiniteRange

_MARKS: Final = {True: "ok ", False: "BAD", None: "-- "}


@click.command()
@options.where
@click.option(
    "--hz",
    type=FiniteRange(min=0.0, min_open=True),
    default=50.0,
    show_default=True,
    help="The control rate that the bus has to keep (control.rate_hz of robot.yaml).",
)
@options.as_json
def doctor(where: Where, hz: float, as_json: bool) -> None:
    """Examine the bus of ROBOT.YAML, or the one at --port: port, adapter, servos, and the duration
    of a cycle. Each finding comes with the command that fixes it.

    Nothing moves, and nothing is written to a servo. The adapter's latency timer is set to 1 ms,
    as at every connect. A line with -- says what could not be read. The exit code is 6 if something
    is wrong.
    """
    clock = MonotonicClock()
    port = where.port
    findings, cycles = examine(where, hz, clock)
    if as_json:
        click.echo(json.dumps(report(port, findings, cycles), indent=1))
    else:
        for finding in findings:
            click.echo(f"{_MARKS[finding.ok]}  {finding.check}: {finding.found}")
            if finding.fix:
                click.echo(f"     fix: {finding.fix}")
        if cycles:
            click.echo(f"reading all servos, {CYCLES} times:")
            click.echo("\n".join(bars(histogram(cycles.ms))))
    if bad := [finding.check for finding in findings if finding.ok is False]:
        raise BusError(f"{port}: {len(bad)} of {len(findings)} checks failed: {', '.join(bad)}")


def report(port: str, findings: Sequence[Finding], cycles: Cycles | None) -> dict[str, Any]:
    """The object that --json prints."""
    measured = None
    if cycles:
        measured = {
            "cycles": CYCLES,
            "p50_ms": cycles.quantile_ms(0.5),
            "p99_ms": cycles.quantile_ms(0.99),
            "max_ms": float(cycles.ms.max()),
            "wire_ms": cycles.wire_ms,
            "repeated": cycles.repeated,
            "lost": cycles.lost,
            "histogram": histogram(cycles.ms),
        }
    return {
        "port": port,
        "ok": all(finding.ok is not False for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "cycle": measured,
    }


def examine(where: Where, hz: float, clock: Clock) -> tuple[list[Finding], Cycles | None]:
    """Run all checks. The later ones are left out if the port or every servo is missing."""
    path = where.port
    to_do = places(path, where.protocol, where.baud)
    try:
        looks = look_everywhere(to_do, clock)
    except PortError as error:
        found, _, fix = str(error).rpartition("; ")
        return [Finding("port", False, found or fix, fix)], None
    latency_timer_ms = shorten_latency_timer(path)
    findings = [
        Finding("port", True, "opens, for this program alone"),
        check_name(path, stable_path(path), _adapter(path)),
        check_latency_timer(latency_timer_ms),
        *check_faults(looks),
    ]
    if not any(look.servos for look in looks):
        asked = [look.place for look in looks if not look.cut_short]
        found, _, fix = no_answer_message(asked).rpartition("; ")
        return [*findings, Finding("servos", False, found, fix)], None
    servos = [servo for look in looks for servo in look.servos]
    findings += check_places(servos)
    findings += [
        Finding("joints", False, f"{name}: no answer", "check its cable, power and id")
        for name in where.missing(servos)
    ]
    read = [pair for look in looks if look.servos for pair in _read_registers(look, clock)]
    findings += [finding for _, _, faults in read for finding in faults]
    findings += judge_servos(
        [(replace(servo, role=where.role(servo.id)), registers) for servo, registers, _ in read]
    )
    most = max(looks, key=lambda look: len(look.servos))
    more, cycles = _examine_timing(most, latency_timer_ms, hz, clock)
    return findings + more, cycles


def _adapter(path: str) -> Adapter | None:
    """What the USB adapter behind the port says about itself; None if it is none."""
    device = os.path.realpath(path)
    for known in list_ports.comports():
        if known.device == device and known.vid is not None and known.pid is not None:
            plug = (known.location or "").partition(":")[0]
            return Adapter(f"{known.vid:04x}", f"{known.pid:04x}", known.serial_number or "", plug)
    return None


_Read = tuple[Servo, Registers, list[Finding]]


def _read_registers(look: Look, clock: Clock) -> list[_Read]:
    """Read each servo's registers. One that stays silent takes nothing from the others."""
    place = look.place
    models = {servo.id: servo.model for servo in look.servos if servo.model}
    names = registers_to_read(place.family)
    try:
        port = SerialPort(place.port, place.baud)
    except PortError as error:
        return [(servo, {}, [_not_read(servo, str(error))]) for servo in look.servos]
    with contextlib.closing(place.family.bus(port, clock, models, TIMEOUT_S)) as bus:
        return [_read_servo(bus, servo, names) for servo in look.servos]


def _read_servo(bus: ServoBus, servo: Servo, names: Sequence[str]) -> _Read:
    known = servo.model.items if servo.model else {}
    registers: dict[str, int] = {}
    faults = []
    for name in [] if servo.mute else [name for name in names if name in known]:
        try:
            registers[name] = bus.read(servo.id, name)
        except BusError as error:
            faults.append(str(error))
    return servo, registers, [_not_read(servo, fault) for fault in faults[:1]]


def _not_read(servo: Servo, error: str) -> Finding:
    found, _, fix = error.rpartition("; ")
    return Finding("registers", False, f"id {servo.id}: {found or fix}", fix)


def _examine_timing(
    look: Look, latency_timer_ms: int | None, hz: float, clock: Clock
) -> tuple[list[Finding], Cycles | None]:
    place = look.place
    models = {servo.id: servo.model for servo in look.servos if servo.model and not servo.mute}
    if not models:
        return [Finding("cycle", None, "not measured: no servo can be read")], None
    try:
        port = RecordingPort(SerialPort(place.port, place.baud))
        with contextlib.closing(place.family.bus(port, clock, models, TIMEOUT_S)) as bus:
            cycles = measure(bus, port, place.family, tuple(models), clock)
    except PortError as error:
        return [Finding("cycle", False, str(error), "check the cable")], None
    except BusError as error:
        return [Finding("cycle", False, str(error), "give them a bus each")], None
    return [
        check_answers(cycles, place),
        check_timing(cycles, place.port, latency_timer_ms),
        check_headroom(cycles, place, tuple(models), hz),
    ], cycles
