"""`v2a motors scan`: lists the servos on all ports, at every rate and in every protocol."""

from __future__ import annotations

import json
from typing import Any

import click
from serial.tools import list_ports

from hw_drivers.bus.port import stable_path
from hw_drivers.motors import options
from hw_drivers.motors.find import Servo, look_at_all, no_answer_message, places
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
    servos: list[Servo] = []
    faults: list[str] = []
    asked = [place for path in _ports(port) for place in places(path, protocol, baud)]
    for path in dict.fromkeys(place.port for place in asked):
        try:
            for found in look_at_all([p for p in asked if p.port == path], MonotonicClock()):
                servos += found.servos
                faults += found.faults
        except PortError as error:
            if port is not None:
                raise
            click.echo(f"note: {error}", err=True)
    if as_json:
        result = {"servos": [_facts(servo) for servo in servos], "faults": faults}
        click.echo(json.dumps(result, indent=1))
    elif servos:
        _print(servos)
    if faults:
        raise BusError("\n".join(faults))
    if not servos:
        raise BusError(no_answer_message(asked))


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
        "firmware": servo.firmware_version,
    }


def _print(servos: list[Servo]) -> None:
    header = ("id", "model", "firmware", "baud", "protocol", "port")
    rows = [
        (
            str(servo.id),
            servo.model_name,
            str(servo.firmware_version),
            str(servo.place.baud),
            servo.place.protocol,
            servo.place.port,
        )
        for servo in servos
    ]
    click.echo("\n".join(columns(header, rows)))
