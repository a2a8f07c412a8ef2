"""One request on a bus and the answers to it, each judged by itself, by a deadline."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from hw_drivers.bus.port import Port
from v2a.clock import Clock

# Adapters pass bytes on once or twice a millisecond (USB full speed), servos are no faster.
_GRACE_NS = 3_000_000


class Status(Protocol):
    """A servo's answer, of any protocol."""

    @property
    def id(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def params(self) -> bytes: ...


class Parser(Protocol):
    """Answers out of what a port received, in any pieces."""

    def feed(self, data: bytes) -> Sequence[Status]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request for `size` bytes from `address` of each of `ids`, and its answer: after
    `head_bytes` one row of `row_bytes` a servo, in which the data begin at `data_at`. `clean` says
    whether received bytes are just that, without an alarm; if not, `parser()` sorts them out.
    `refusal` masks the bits of an error byte that mean that the servo did not do it."""

    packet: bytes
    ids: tuple[int, ...]
    address: int
    size: int
    head_bytes: int
    row_bytes: int
    data_at: int
    clean: Callable[[bytes], bool]
    parser: Callable[[], Parser]
    refusal: int = 0

    def answers(self, status: Status) -> bool:
        """Whether this can be an answer to this request: one to another is of another size."""
        return len(status.params) == self.size or self.refused(status)

    def refused(self, status: Status) -> bool:
        """Whether the servo says that it did not do it."""
        return bool(status.error & self.refusal)

    @property
    def answer_bytes(self) -> int:
        """Length of the whole answer."""
        return self.head_bytes + self.row_bytes * len(self.ids)


class Heard(dict[int, Status]):
    """Who answered, by id. The servos answer in the order in which they were asked (`ids`): an
    answer ahead of its turn was to an earlier request, and the next one in turn shows it."""

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__()
        self._turn = {servo_id: turn for turn, servo_id in enumerate(ids)}

    @property
    def complete(self) -> bool:
        """Whether everyone who was asked has answered."""
        return len(self) == len(self._turn)

    def take(self, status: Status) -> None:
        """Note an answer; one of a servo that was not asked is passed over."""
        turn = self._turn.get(status.id)
        if turn is None:
            return
        for servo_id in [servo_id for servo_id in self if self._turn[servo_id] >= turn]:
            del self[servo_id]
        self[status.id] = status


class BusWire:
    """Sends requests and waits for their answers. Not for use by two threads at a time.

    A request begins by throwing away what has been received, unless nobody owed an answer. Every
    method raises PortError when the port is gone.
    """

    def __init__(self, port: Port, clock: Clock) -> None:
        self._port = port
        self.clock = clock
        self._all_taken = False  # nobody owes an answer, and all that came has been read
        self._owed = False  # somebody was asked and has not answered
        self._free_ns = 0  # when the wire has carried all that was sent
        self.return_delay_ns: dict[int, int] = {}  # id -> how long it waits before it answers

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def send(self, packet: bytes) -> None:
        """Send what nobody answers."""
        self._port.write(packet)
        now_ns = self.clock.now_ns()
        self._free_ns = max(self._free_ns, now_ns) + len(packet) * self._port.ns_per_byte

    def settle(self, timeout_s: float) -> None:
        """Give answers that are owed `timeout_s` more to come: a servo's late answer looks like the
        one to its next request, and may be the value of another register."""
        until_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        while self._owed and (left_ns := until_ns - self.clock.now_ns()) > 0:
            self._owed = bool(self._port.read(left_ns * 1e-9))

    def answer_ns(self, ids: Sequence[int], n_bytes: int) -> int:
        """How long an answer of `n_bytes` by `ids` takes at the least; 0 where no time passes."""
        if not self._port.ns_per_byte:
            return 0
        delays_ns = sum(self.return_delay_ns.get(servo_id, 0) for servo_id in ids)
        return n_bytes * self._port.ns_per_byte + delays_ns

    def ask(
        self, request: Request, answer_ns: int, given_up: Collection[int], until_ns: int
    ) -> bytes | Heard:
        """The answer as received where it is clean, else who was heard. Waits until `until_ns`, or
        as long as a good answer takes where that is later; for those `given_up` no longer."""
        port, clock = self._port, self.clock
        if not self._all_taken:
            port.reset_input()
        self._all_taken, self._owed = False, True
        self.send(request.packet)
        soon_ns = self._free_ns + answer_ns + port.latency_ns + _GRACE_NS
        late_ns = max(until_ns, soon_ns)
        received, left_ns, whole = b"", 1, request.answer_bytes
        while len(received) < whole and left_ns > 0:
            left_ns = (soon_ns if given_up else late_ns) - clock.now_ns()
            data = port.read(max(left_ns, 0) * 1e-9)
            if not data:
                break
            received += data
        if request.clean(received):
            self._all_taken, self._owed = True, False
            return received
        live = [servo_id for servo_id in request.ids if servo_id not in given_up]
        return self._sort(
            received,
            request.parser(),
            Heard(request.ids),
            lambda heard: late_ns if any(i not in heard for i in live) else soon_ns,
            request.answers,
        )

    def ask_one(
        self,
        packet: bytes,
        parser: Parser,
        ids: Sequence[int],
        timeout_s: float,
        fits: Callable[[Status], bool] = lambda _: True,
    ) -> Heard:
        """Send `packet`; the answers of `ids` that fit, as many as come within `timeout_s`."""
        self._port.reset_input()
        self._all_taken, self._owed = False, True
        self.send(packet)
        until_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        return self._sort(b"", parser, Heard(ids), lambda _: until_ns, fits)

    def _sort(
        self,
        received: bytes,
        parser: Parser,
        heard: Heard,
        until_ns: Callable[[Heard], int],
        fits: Callable[[Status], bool],
    ) -> Heard:
        """Sort out what has been and will be received until all are heard, or the time is over.
        What has arrived by then is still looked at: a host that was stopped past the deadline has
        the answers waiting."""
        left_ns = 1
        while True:
            for status in parser.feed(received):
                if fits(status):
                    heard.take(status)
            if heard.complete or left_ns <= 0:
                self._owed = not heard.complete
                return heard
            left_ns = until_ns(heard) - self.clock.now_ns()
            received = self._port.read(max(left_ns, 0) * 1e-9)
            if not received:
                return heard
