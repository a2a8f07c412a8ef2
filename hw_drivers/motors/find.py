"""Finds servos: asks at every rate in every protocol and examines the answers byte by byte.

Nothing here writes to a servo. A place where asking fails takes nothing from the other places.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import click

from hw_drivers.bus.bus import Pong, ServoBus
from hw_drivers.bus.port import RateError, SerialPort
from hw_drivers.bus.registers import Model, find_model
from hw_drivers.family import FAMILIES, PLAIN, Family, Role, load_family
from hw_drivers.motors.answer_check import Verdict, judge
from hw_drivers.motors.recording import RecordingPort
from hw_drivers.robot.command_lines import doctor_line, setup_line
from v2a.clock import Clock
from v2a.errors import BusError, ConfigError, PortError
from v2a.terminal import Bar

TIMEOUT_S: Final = 0.05  # for one answer: longer than an FTDI adapter holds it back
_PING_S: Final = 0.02  # for each id that should be silent
_LIKELY_BAUDS = (1_000_000, 57_600, 115_200)  # usual rates, and factory rates


_TWICE: Final = "answers twice: two servos have this id"
_BROKEN: Final = "gives a broken answer: two servos have this id, or noise"


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
    pong: Pong
    mute: bool = False  # it answers a ping, and no read: its status return level is 0
    role: Role = PLAIN  # what robot.yaml asks of it

    @property
    def model_number(self) -> int:
        return self.pong.model_number

    @property
    def model(self) -> Model | None:
        """Its register table; None if the model is unknown."""
        return find_model(
            self.place.family.tables, self.pong.model_number, self.pong.firmware_version
        )

    @property
    def model_name(self) -> str:
        return self.model.name if self.model else f"model number {self.model_number}"

    @property
    def setup_line(self) -> str:
        """The command that corrects its settings."""
        place = self.place
        return setup_line(place.port, place.protocol, place.baud, self.id, role=self.role)

    def __str__(self) -> str:
        where = f"{self.place.protocol} at {self.place.baud} baud"
        return f"id {self.id}: {self.model_name}, {where}"


@dataclass(frozen=True, slots=True)
class Fault:
    """Something wrong at a place. `servo_id` is None if it concerns every servo there."""

    servo_id: int | None
    found: str
    fix: str

    def concerns(self, servo_id: int) -> bool:
        """Whether the fault makes it unsafe to talk to this servo."""
        return self.servo_id in (None, servo_id)

    def __str__(self) -> str:
        return f"{self.found}; {self.fix}"


@dataclass(frozen=True, slots=True)
class Look:
    """The result of asking at one place: the servos found, and what is wrong there.

    `cut_short` says why the place could not be asked, or not to the end; it is empty otherwise.
    """

    place: Place
    servos: tuple[Servo, ...] = ()
    faults: tuple[Fault, ...] = ()
    cut_short: str = ""
    rate_refused: bool = False  # that is why


def places(port: str, protocol: str | None, baud: int | None) -> list[Place]:
    """The places to ask at `port`, the likeliest first. Raises ConfigError for an unknown rate."""
    found = [
        Place(port, name, rate)
        for name in FAMILIES
        for rate in load_family(name).bauds
        if protocol in (None, name) and baud in (None, rate)
    ]
    if not found:
        names = [protocol] if protocol else list(FAMILIES)
        rates = sorted({rate for name in names for rate in load_family(name).bauds})
        raise ConfigError(f"no servo of {' or '.join(names)} knows {baud} baud; known are {rates}")
    return sorted(found, key=lambda place: _unlikeliness(place.baud))


def _unlikeliness(baud: int) -> int:
    return _LIKELY_BAUDS.index(baud) if baud in _LIKELY_BAUDS else len(_LIKELY_BAUDS)


def look_at_all(to_do: Sequence[Place], clock: Clock) -> Iterator[Look]:
    """Ask at each place in turn. On a terminal, a progress bar names the place.

    A place that can't be asked gives a result that says so. After a port was lost, its other rates
    are left out.
    """
    lost: set[str] = set()
    with Bar("looking for servos", len(to_do)) as bar:
        if not bar.in_place:
            click.echo("looking for servos", err=True)
        for place in to_do:
            bar.begin(str(place))
            if place.port not in lost:
                try:
                    found = look(place, clock)
                except RateError as error:
                    found = Look(place, cut_short=str(error), rate_refused=True)
                except PortError as error:
                    found = Look(place, cut_short=str(error))
                    lost.add(place.port)
                yield found
            bar.done()


def look_everywhere(to_do: Sequence[Place], clock: Clock) -> list[Look]:
    """All results of `look_at_all`. Raises PortError if no place at all could be asked."""
    looks = [*look_at_all(to_do, clock)]
    if all(found.cut_short and not found.servos for found in looks):
        raise PortError(looks[0].cut_short)
    return looks


def find_first(port: str, protocol: str | None, baud: int | None, clock: Clock) -> Look:
    """Ask until servos answer, and return that result.

    Raises BusError if none answers, PortError if no place at all could be asked.
    """
    to_do = places(port, protocol, baud)
    looks = []
    for found in look_at_all(to_do, clock):
        looks.append(found)
        if found.servos or found.faults:
            return found
    raise _nothing_found(looks)


def _nothing_found(looks: Sequence[Look]) -> BusError:
    asked = [found.place for found in looks if not found.cut_short]
    if not asked:
        return PortError(looks[0].cut_short)
    return BusError(no_answer_message(asked))


def notes(looks: Sequence[Look]) -> list[str]:
    """One line for each place that could not be asked to the end."""
    return list(dict.fromkeys(found.cut_short for found in looks if found.cut_short))


def mute_notes(looks: Sequence[Look]) -> list[str]:
    """One line for each servo that answers pings, and no reads."""
    mute = [servo for found in looks for servo in found.servos if servo.mute]
    return [f"{servo}: answers pings, and no reads; run {servo.setup_line}" for servo in mute]


def no_answer_message(asked: Sequence[Place]) -> str:
    """The error message after no servo answered at any of the places `asked`."""
    rates = {
        place.protocol: [p.baud for p in asked if p.protocol == place.protocol] for place in asked
    }
    tried = "; ".join(
        f"{name} at {', '.join(map(str, dict.fromkeys(bauds)))}" for name, bauds in rates.items()
    )
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

    Raises PortError if the port can't be opened. If it vanishes later, the result keeps the servos
    found until then.
    """
    port = RecordingPort(SerialPort(place.port, place.baud))
    models: dict[int, Model] = {}
    bus = place.family.bus(port, clock, models, TIMEOUT_S)
    pongs: dict[int, Pong] = {}
    faults: list[Fault] = []
    mute: set[int] = set()
    cut_short = ""
    try:
        first = _ask_everyone(bus, port, place, pongs)
        if pongs or first.broken:
            second = _ask_everyone(bus, port, place, pongs)
            twice = sorted(first.twice & second.twice)
            faults += [_two(place, pongs, servo_id, _TWICE) for servo_id in twice]
            if first.broken and second.broken:
                faults += _broken(bus, port, place, pongs) or [_noise(place)]
            models.update((s.id, s.model) for s in _servos(place, pongs, ()) if s.model)
            _read_positions(bus, port, place, pongs, faults, mute)
    except PortError as error:
        cut_short = str(error)
    finally:
        bus.close()
    return Look(place, _servos(place, pongs, mute), tuple(faults), cut_short)


def _servos(place: Place, pongs: dict[int, Pong], mute: set[int] | tuple[()]) -> tuple[Servo, ...]:
    return tuple(Servo(place, k, pongs[k], mute=k in mute) for k in sorted(pongs))


def _ask_everyone(
    bus: ServoBus, port: RecordingPort, place: Place, pongs: dict[int, Pong]
) -> Verdict:
    """Add the servos that answer to `pongs`."""
    port.exchanges.clear()
    pongs.update(bus.scan())
    verdicts = [judge(exchange, place.family.packets) for exchange in port.exchanges]
    twice = frozenset(servo_id for verdict in verdicts for servo_id in verdict.twice)
    return Verdict(twice, any(verdict.broken for verdict in verdicts))


def _broken(
    bus: ServoBus, port: RecordingPort, place: Place, pongs: dict[int, Pong]
) -> list[Fault]:
    """Ping the ids without a good answer one by one: a broadcast does not tell who collided."""
    packets, faults = place.family.packets, []
    for servo_id in range(packets.max_id + 1):
        if servo_id not in pongs:
            ping = packets.make_ping(servo_id)
            bus.wire.ask_one(ping, packets.parser(ping), (servo_id,), _PING_S)
            if judge(port.exchanges[-1], packets).broken:
                faults.append(_two(place, pongs, servo_id, _BROKEN))
    return faults


def _read_positions(
    bus: ServoBus,
    port: RecordingPort,
    place: Place,
    pongs: dict[int, Pong],
    faults: list[Fault],
    mute: set[int],
) -> None:
    """Read each position: two servos of one model answer a ping alike, but stand differently.

    A servo that sends not one byte is no collision: it is set up to answer nothing but pings.
    """
    for servo_id in bus.models:
        port.exchanges.clear()
        try:
            bus.read(servo_id, "present_position")
        except PortError:
            raise
        except BusError:
            if any(bytes(e.received).removeprefix(e.sent) for e in port.exchanges):
                faults.append(_two(place, pongs, servo_id, _BROKEN))
            elif bus.ping(servo_id):
                mute.add(servo_id)
            else:
                lost = f"id {servo_id} answered, and is silent now"
                faults.append(Fault(servo_id, lost, "check its plugs and its supply"))


def _two(place: Place, pongs: dict[int, Pong], servo_id: int, what: str) -> Fault:
    """Two servos seem to have one id. The fix gives one of them the lowest free id."""
    free = min({*range(1, place.family.packets.max_id + 1)} - {servo_id, *pongs}, default=servo_id)
    line = setup_line(place.port, place.protocol, place.baud, servo_id, new_id=free)
    return Fault(
        servo_id,
        f"id {servo_id} {what}",
        f"connect one of them alone and give it an id of its own: {line}",
    )


def _noise(place: Place) -> Fault:
    found = f"{place}: the bytes that come back are no packet"
    line = doctor_line(place.port, place.protocol, place.baud)
    return Fault(None, found, f"check ground, cable and termination, then run {line}")
