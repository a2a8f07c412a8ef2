"""Finds servos: asks at every rate in every protocol and examines the answers byte by byte.

Nothing here writes to a servo.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click

from hw_drivers.bus.bus import Pong, ServoBus
from hw_drivers.bus.port import SerialPort
from hw_drivers.bus.registers import Model, find_model
from hw_drivers.family import FAMILIES, Family, load_family
from hw_drivers.motors.answer_check import Verdict, judge
from hw_drivers.motors.recording import RecordingPort
from hw_drivers.robot.checks import setup_line
from v2a.clock import Clock
from v2a.errors import BusError, PortError
from v2a.terminal import Bar

TIMEOUT_S: Final = 0.05  # for one answer: longer than an FTDI adapter holds it back
_PING_S: Final = 0.02  # for each id that should be silent
_LIKELY_BAUDS = (1_000_000, 57_600, 115_200)  # usual rates, and factory rates


@dataclass(frozen=True, slots=True)
class Place:
    """Where servos may be: a port, a protocol and a rate."""

    port: str
    protocol: str
    baud: int

    @property
    def family(self) -> Family:
        """The record of the family that speaks this protocol."""
        return load_family(self.protocol)

    def __str__(self) -> str:
        return f"{self.port}: {self.protocol} at {self.baud} baud"


@dataclass(frozen=True, slots=True)
class Servo:
    """A servo that answered."""

    place: Place
    id: int
    model_number: int
    firmware_version: int

    @property
    def model(self) -> Model | None:
        """Its register table; None if the model is unknown."""
        return find_model(self.place.family.tables, self.model_number, self.firmware_version)

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else f"model number {self.model_number}"

    @property
    def setup_line(self) -> str:
        """The command that corrects its settings."""
        return setup_line(self.place.port, self.place.protocol, self.place.baud, self.id)

    def __str__(self) -> str:
        where = f"{self.place.protocol} at {self.place.baud} baud"
        return f"id {self.id}: {self.model_name}, {where}"


@dataclass(frozen=True, slots=True)
class Look:
    """The result of asking at one place: the servos found, and what is wrong there."""

    place: Place
    servos: tuple[Servo, ...]
    faults: tuple[str, ...]


def places(port: str, protocol: str | None, baud: int | None) -> list[Place]:
    """The places to ask at `port`, the likeliest first. Raises BusError for an unknown rate."""
    found = [
        Place(port, name, rate)
        for name in FAMILIES
        for rate in load_family(name).bauds
        if protocol in (None, name) and baud in (None, rate)
    ]
    if not found:
        rates = sorted({rate for name in FAMILIES for rate in load_family(name).bauds})
        raise BusError(f"no servo of that protocol knows {baud} baud; known are {rates}")
    return sorted(found, key=lambda place: _unlikeliness(place.baud))


def _unlikeliness(baud: int) -> int:
    return _LIKELY_BAUDS.index(baud) if baud in _LIKELY_BAUDS else len(_LIKELY_BAUDS)


def look_at_all(to_do: Sequence[Place], clock: Clock) -> Iterator[Look]:
    """Ask at each place in turn. On a terminal, a progress bar names the place."""
    with Bar("looking for servos", len(to_do)) as bar:
        if not bar.in_place:
            click.echo("looking for servos", err=True)
        for place in to_do:
            bar.begin(str(place))
            yield look(place, clock)
            bar.done()


def find_first(port: str, protocol: str | None, baud: int | None, clock: Clock) -> Look:
    """Ask until servos answer, and return that result. Raises BusError if none answers."""
    to_do = places(port, protocol, baud)
    for found in look_at_all(to_do, clock):
        if found.servos or found.faults:
            return found
    raise BusError(no_answer_message(to_do))


def no_answer_message(asked: Sequence[Place]) -> str:
    """The error message after no servo answered at any of the places `asked`."""
    rates = {
        place.protocol: [p.baud for p in asked if p.protocol == place.protocol] for place in asked
    }
    tried = "; ".join(f"{name} at {', '.join(map(str, bauds))}" for name, bauds in rates.items())
    ports = ", ".join(dict.fromkeys(place.port for place in asked))
    return (
        f"{ports}: no servo answers (asked: {tried} baud); check its power, its cable, and that "
        "no other program reads this port"
    )


def open_bus(servos: Sequence[Servo], clock: Clock) -> ServoBus:
    """Open the bus of `servos`, all of one place. Raises BusError if a model is unknown."""
    place = servos[0].place
    models = {servo.id: servo.model for servo in servos if servo.model}
    if strange := [str(servo) for servo in servos if servo.model is None]:
        known = ", ".join(place.family.models)
        raise BusError(f"{place.port}: unknown: {'; '.join(strange)}; known are {known}")
    port = SerialPort(place.port, place.baud)
    return place.family.bus(port, clock, models, TIMEOUT_S)


def look(place: Place, clock: Clock) -> Look:
    """Ask all ids at `place`, and a second time if anything came back: an answer may get lost.

    A rate that the adapter can't do gives an empty result. Raises PortError if the port can't be
    opened.
    """
    try:
        port = RecordingPort(SerialPort(place.port, place.baud))
    except PortError as error:
        if isinstance(error.__cause__, ValueError):  # pyserial raises it for such a rate
            return Look(place, (), ())
        raise
    models: dict[int, Model] = {}
    bus = place.family.bus(port, clock, models, TIMEOUT_S)
    try:
        pongs, first = _ask_everyone(bus, port, place)
        if not pongs and not first.broken:
            return Look(place, (), ())
        more, second = _ask_everyone(bus, port, place)
        pongs = dict(sorted((pongs | more).items()))
        servos = tuple(
            Servo(place, servo_id, pong.model_number, pong.firmware_version)
            for servo_id, pong in pongs.items()
        )
        models.update({servo.id: servo.model for servo in servos if servo.model})
        faults = [_TWICE.format(servo_id) for servo_id in sorted(first.twice & second.twice)]
        if first.broken and second.broken:
            faults += _broken(bus, port, place, pongs) or [f"{place}: {_NOISE}"]
        return Look(place, servos, (*faults, *_unreadable(bus)))
    finally:
        bus.close()


_ONE_ALONE = "connect one of them alone and give it an id of its own (v2a motors setup)"
_TWICE = "id {} answers twice: two servos have this id; " + _ONE_ALONE
_BROKEN = "id {} gives a broken answer: two servos have this id, or noise; " + _ONE_ALONE
_NOISE = "the bytes that come back are no packet; check ground, cable and termination"


def _ask_everyone(
    bus: ServoBus, port: RecordingPort, place: Place
) -> tuple[dict[int, Pong], Verdict]:
    port.exchanges.clear()
    pongs = bus.scan()
    verdicts = [judge(exchange, place.family.packets) for exchange in port.exchanges]
    twice = frozenset(servo_id for verdict in verdicts for servo_id in verdict.twice)
    return pongs, Verdict(twice, any(verdict.broken for verdict in verdicts))


def _broken(bus: ServoBus, port: RecordingPort, place: Place, pongs: dict[int, Pong]) -> list[str]:
    """Ping the ids without a good answer one by one: a broadcast does not tell who collided."""
    packets, faults = place.family.packets, []
    for servo_id in range(packets.max_id + 1):
        if servo_id not in pongs:
            ping = packets.make_ping(servo_id)
            bus.wire.ask_one(ping, packets.parser(ping), (servo_id,), _PING_S)
            if judge(port.exchanges[-1], packets).broken:
                faults.append(_BROKEN.format(servo_id))
    return faults


def _unreadable(bus: ServoBus) -> list[str]:
    """Read positions: two servos of one model answer a ping alike, but stand differently."""
    faults = []
    for servo_id in bus.models:
        try:
            bus.read(servo_id, "present_position")
        except PortError:
            raise
        except BusError:
            faults.append(_BROKEN.format(servo_id))
    return faults
