"""`v2a motors scan`: lists the servos on all ports, at every rate and in every protocol."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import click
from serial.tools import list_ports

from hw_drivers.bus.port import stable_path
from hw_drivers.motors import options
from hw_drivers.motors.find import (
    Look,
    Servo,
    look_at_all,
    mute_notes,
    no_answer_message,
    notes,
    places,
)
from v2a.clock import MonotonicClock
from v2a.errors import BusError, PortError
from v2a.terminal import columns


@click.command()
@click.option("--port", metavar="PATH", help="Look only at this serial port.  [default: all]")
@options.protocol
@options.baud
@options.as_json
def scan(port: str | None, protocol: str | None, baud: int | None, as_json: bool) -> None:
    """List the servos that answer, with their id, model, firmware and rate.

    By default the command tries every rate and protocol, which takes about 20 s for each port.
    --protocol and --baud make it shorter. Nothing is written. The exit code is 6 if no servo
    answers, or if two servos have the same id.
    """
    asked = [place for path in _ports(port) for place in places(path, protocol, baud)]
    looks = [*look_at_all(asked, MonotonicClock())]
    servos = [servo for found in looks for servo in found.servos]
    faults = [str(fault) for found in looks for fault in found.faults]
    for note in [*notes(looks), *mute_notes(looks)]:
        click.echo(f"note: {note}", err=True)
    if as_json:
        result = {"servos": list(map(_facts, servos)), "faults": faults, "not_asked": notes(looks)}
        click.echo(json.dumps(result, indent=1))
    elif servos:
        _print(servos)
    if faults:
        raise BusError("\n".join(faults))
    reached = [found.place for found in looks if not found.cut_short]
    if not reached or (port is not None and _lost(looks)):
        raise PortError((_lost(looks) or notes(looks))[0])
    if not servos:
        raise BusError(no_answer_message(reached))


def _lost(looks: Sequence[Look]) -> list[str]:
    """Why ports could not be asked at all, or not to the end. A refused rate loses no port."""
    return [found.cut_short for found in looks if found.cut_short and not found.rate_refused]


def _ports(port: str | None) -> list[str]:
    """The port given, or all ports, by names that stay the same after a replug."""
    if port is not None:
        return [port]
    found = [stable_path(known.device) or known.device for known in list_ports.comports()]
    if not found:
        raise PortError("no serial port found; plug in the adapter, or name one with --port")
    return sorted(found)


def _facts(servo: Servo) -> dict[str, Any]:
    return {
        "port": servo.place.port,
        "protocol": servo.place.protocol,
        "baud": servo.place.baud,
        "id": servo.id,
        "model": servo.model.name if servo.model else None,
        "model_number": servo.model_number,
        "firmware": servo.pong.firmware_version,
        "firmware_minor": servo.pong.firmware_minor,
    }


def _print(servos: list[Servo]) -> None:
    header = ("id", "model", "firmware", "baud", "protocol", "port")
    rows = [
        (
            str(servo.id),
            servo.model_name,
            servo.pong.firmware,
            str(servo.place.baud),
            servo.place.protocol,
            servo.place.port,
        )
        for servo in servos
    ]
    click.echo("\n".join(columns(header, rows)))
