"""`v2a motors monitor`: shows what all servos measure, five times a second."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import click
import numpy as np

from hw_drivers.bus.block import NEVER_NS, NO_RAW, Block
from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.reader import BlockReader
from hw_drivers.motors import options
from hw_drivers.motors.find import Look, Servo, mute_notes, notes, open_bus
from hw_drivers.motors.where import Where
from v2a.clock import Clock, MonotonicClock
from v2a.errors import BusError
from v2a.option_types import FiniteRange
from v2a.terminal import LiveLines, columns

_PERIOD_NS: Final = 200_000_000
_BUDGET_S: Final = 0.1


class _Quantity(NamedTuple):
    register: str
    key: str  # in JSON
    title: str
    digits: int


_QUANTITIES: Final = (
    _Quantity("present_position", "position_rad", "rad", 3),
    _Quantity("present_velocity", "velocity_rad_s", "rad/s", 2),
    _Quantity("present_current", "current_a", "A", 3),
    _Quantity("present_load", "load", "load", 3),  # from servos that can't measure their current
    _Quantity("present_input_voltage", "voltage_v", "V", 1),
    _Quantity("present_temperature", "temperature_c", "deg C", 0),
)


class _Watched(NamedTuple):
    """Servos of one model, read by one request."""

    servos: Sequence[Servo]
    reader: BlockReader
    block: Block


@click.command()
@options.where
@click.option("--seconds", type=FiniteRange(min=0.0), help="End by itself after so long.")
@options.as_json
def monitor(where: Where, seconds: float | None, as_json: bool) -> None:
    """Show position, velocity, current, voltage, temperature and alarms of the joints of
    ROBOT.YAML, or of all servos at --port, and the age of each reading, until Ctrl-C.

    Nothing is written. With --json, each reading is one object on a line of its own; otherwise a
    table stays in place on the terminal. A silent servo has empty cells and an age, never zeros.
    With ROBOT.YAML, positions are those of the joints, and without, those of the servos.
    """
    clock = MonotonicClock()
    found = where.find(clock)
    servos = [servo for servo in found.servos if servo.model and not servo.mute]
    for note in _left_out(where, found):
        click.echo(f"note: {note}", err=True)
    if not servos:
        raise BusError(f"{found.place}: no servo that can be read")
    lines = LiveLines()
    with contextlib.closing(open_bus(servos, clock)) as bus:
        watched = watch(bus, servos)
        next_ns = clock.now_ns()
        end_ns = math.inf if seconds is None else next_ns + seconds * 1e9
        while True:
            states = [state for group in watched for state in read(bus, group, where, clock)]
            if as_json:
                click.echo(json.dumps({"t_ns": clock.now_ns(), "servos": states}))
            else:
                lines.show(_table(states))
            next_ns = max(next_ns + _PERIOD_NS, clock.now_ns())
            if next_ns > end_ns:
                return
            clock.sleep_until_ns(next_ns)


def _left_out(where: Where, found: Look) -> Iterator[str]:
    """Say what the table does not show, and why."""
    yield from map(str, found.faults)
    yield from [*notes([found]), *mute_notes([found])]
    for servo in found.servos:
        if servo.model is None:
            yield f"{servo}: not a known model, not shown"
    for name in where.missing(found.servos):
        yield f"{name}: no answer; check its cable, power and id"


def watch(bus: ServoBus, servos: Sequence[Servo]) -> list[_Watched]:
    """Group the servos by model: each model keeps its registers at other addresses."""
    groups: dict[str, list[Servo]] = {}
    for servo in servos:
        groups.setdefault(servo.model_name, []).append(servo)
    return [_watch_one_model(bus, group) for group in groups.values()]


def _watch_one_model(bus: ServoBus, servos: Sequence[Servo]) -> _Watched:
    ids = tuple(servo.id for servo in servos)
    names = [q.register for q in _QUANTITIES if q.register in bus.models[ids[0]].items]
    block = bus.block(names, ids)
    return _Watched(servos, bus.reader(ids), block)


def read(bus: ServoBus, watched: _Watched, where: Where, clock: Clock) -> Iterator[dict[str, Any]]:
    """Read each servo once. The result is ready for JSON, with None for unknown values."""
    found = watched.reader.read(watched.block, _BUDGET_S)
    now_ns = clock.now_ns()
    readings = {
        q.key: found.reading(q.register, now_ns) for q in _QUANTITIES if q.register in found.block
    }
    ticks = found.raw("present_position")
    for k, servo in enumerate(watched.servos):
        values = {key: float(reading.value[k]) for key, reading in readings.items()}
        alarmed = int(found.error[k]) & servo.place.family.alarm_bits
        age_ns = int(readings["position_rad"].age_ns[k])
        valid = bool(found.valid[k])
        joint, named = where.joint(servo.id), where.servo(servo.id)
        if joint:
            values["position_rad"] = joint.direction * (
                values["position_rad"] - joint.zero_tick * joint.rad_per_tick
            )
        yield {
            **({"joint": named.name} if named else {}),
            "id": servo.id,
            "model": servo.model_name,
            "valid": valid,
            "position_tick": None if ticks[k] == NO_RAW else int(ticks[k]),
            **{key: None if np.isnan(value) else round(value, 6) for key, value in values.items()},
            "alarms": (_alarms(bus, servo) if alarmed else "") if valid else None,
            "age_ms": None if age_ns == NEVER_NS else round(age_ns / 1e6, 1),
        }


def _alarms(bus: ServoBus, servo: Servo) -> str:
    try:
        status = bus.read(servo.id, "hardware_error_status")
    except BusError as error:
        return str(error)
    return servo.place.family.describe_alarms(status) or "gone again"


def _table(states: Sequence[Mapping[str, Any]]) -> list[str]:
    shown = [q for q in _QUANTITIES if any(q.key in state for state in states)]
    joint = ("joint",) if any("joint" in state for state in states) else ()
    header = (*joint, "id", "model", "tick", *(q.title for q in shown), "age ms", "alarms")
    rows = [
        (
            *(str(state[key]) for key in joint),
            str(state["id"]),
            state["model"],
            _cell(state["position_tick"], 0),
            *(_cell(state.get(q.key), q.digits) for q in shown),
            _cell(state["age_ms"], 0) or "never heard",
            "not read" if state["alarms"] is None else state["alarms"],
        )
        for state in states
    ]
    return columns(header, rows)


def _cell(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"
