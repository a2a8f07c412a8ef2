"""`v2a motors doctor`: says what is wrong with a bus, and which command fixes it."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Final

import click

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import SerialPort, stable_path
from hw_drivers.motors import options
from hw_drivers.motors.cycle_time import CYCLES, Cycles, bars, histogram, measure
from hw_drivers.motors.doctor_checks import (
    Finding,
    Registers,
    check_latency_timer,
    check_name,
    check_places,
    judge_servos,
    registers_to_read,
)
from hw_drivers.motors.find import TIMEOUT_S, Look, Servo, look_at_all, no_answer_message, places
from hw_drivers.motors.recording import RecordingPort
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError, PortError
from v2a.option_types import FiniteRange

_MARKS: Final = {True: "ok ", False: "BAD"}


@click.command()
@options.port
@options.protocol
@options.baud
@click.option(
    "--hz",
    type=FiniteRange(min=0.0, min_open=True),
    default=50.0,
    show_default=True,
    help="The control rate that the bus has to keep (control.rate_hz of robot.yaml).",
)
@options.as_json
def doctor(port: str, protocol: str | None, baud: int | None, hz: float, as_json: bool) -> None:
    """Examine a bus: port, adapter, servos, and the duration of a cycle. Each finding comes with
    the command that fixes it.

    Nothing moves, and nothing is written to a servo. The adapter's latency timer is set to 1 ms,
    as at every connect. The exit code is 6 if something is wrong.
    """
    clock = MonotonicClock()
    findings, cycles = examine(port, protocol, baud, hz, clock)
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
    if bad := [finding.check for finding in findings if not finding.ok]:
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
        "ok": all(finding.ok for finding in findings),
        "findings": [asdict(finding) for finding in findings],
        "cycle": measured,
    }


def examine(
    path: str, protocol: str | None, baud: int | None, hz: float, clock: Clock
) -> tuple[list[Finding], Cycles | None]:
    """Run all checks. The later ones are left out if the port or every servo is missing."""
    to_do = places(path, protocol, baud)
    try:
        with contextlib.closing(SerialPort(path, to_do[0].baud)) as port:
            latency_timer_ms = port.latency_timer_ms
        looks = [*look_at_all(to_do, clock)]
    except PortError as error:
        found, _, fix = str(error).rpartition("; ")
        return [Finding("port", False, found or fix, fix)], None
    findings = [
        Finding("port", True, "opens, for this program alone"),
        check_name(path, stable_path(path)),
        check_latency_timer(latency_timer_ms),
        *(Finding("ids", False, fault, "see there") for look in looks for fault in look.faults),
    ]
    if not any(look.servos for look in looks):
        found, _, fix = no_answer_message(to_do).rpartition("; ")
        return [*findings, Finding("servos", False, found, fix)], None
    findings.append(check_places([servo for look in looks for servo in look.servos]))
    most = max(looks, key=lambda look: len(look.servos))
    more, cycles = _examine_servos(most, hz, clock)
    return findings + more, cycles


def _examine_servos(look: Look, hz: float, clock: Clock) -> tuple[list[Finding], Cycles | None]:
    place = look.place
    port = RecordingPort(SerialPort(place.port, place.baud))
    models = {servo.id: servo.model for servo in look.servos if servo.model}
    with contextlib.closing(place.family.bus(port, clock, models, TIMEOUT_S)) as bus:
        read = [(servo, _registers(bus, servo)) for servo in look.servos]
        findings = judge_servos(read)
        if not models:
            return findings, None
        try:
            cycles = measure(bus, port, place.family, tuple(models), clock)
        except PortError as error:
            return [*findings, Finding("cycle", False, str(error), "check the cable")], None
        except BusError as error:
            return [*findings, Finding("cycle", False, str(error), "give them a bus each")], None
    return [*findings, check_answers(cycles), check_headroom(cycles, place.baud, hz)], cycles


def _registers(bus: ServoBus, servo: Servo) -> Registers:
    known = servo.model.items if servo.model else {}
    names = registers_to_read(servo.place.family)
    return {name: bus.read(servo.id, name) for name in names if name in known}


def check_answers(cycles: Cycles) -> Finding:
    """Check that every servo answered the first request of every reading."""
    found = (
        f"{cycles.repeated} of {CYCLES} readings had to ask again, {cycles.lost} stayed incomplete"
    )
    if not cycles.repeated and not cycles.lost:
        return Finding("answers", True, f"all of {CYCLES} readings complete at once")
    fix = "check plugs, cable length, ground and supply; `v2a motors monitor` shows which is silent"
    return Finding("answers", False, found, fix)


def check_headroom(cycles: Cycles, baud: int, hz: float) -> Finding:
    """Check that a cycle fits in the period of `hz`: the measured reading plus computed goals."""
    cycle_ms = cycles.quantile_ms(0.5) + cycles.goal_ms
    wire_ms = cycles.wire_ms + cycles.goal_ms
    found = (
        f"a cycle takes {cycle_ms:.2f} ms of {1e3 / hz:.1f} ms at {hz:g} Hz "
        f"({wire_ms:.2f} ms of it on the wire at {baud} baud, reading p50 "
        f"{cycles.quantile_ms(0.5):.2f}, p99 {cycles.quantile_ms(0.99):.2f} ms)"
    )
    if cycle_ms <= 1e3 / hz:
        return Finding("headroom", True, found)
    fix = (
        "fix the findings above, raise the rate (v2a motors setup --baud), or lower control.rate_hz"
    )
    return Finding("headroom", False, found, fix)
