"""Sends one request on a bus and collects its answers until a deadline."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from hw_drivers.bus.port import Port
from v2a.clock import Clock

# Adapters pass bytes on once or twice a millisecond (USB full speed). Servos are no faster.
_GRACE_NS = 3_000_000
_LATE_SIZES = 8


class Status(Protocol):
    """A servo's answer, in any protocol."""

    @property
    def id(self) -> int: ...
    @property
    def error(self) -> int: ...
    @property
    def params(self) -> bytes: ...


class Parser(Protocol):
    """Finds answers in the bytes from a port, which come in any pieces."""

    def feed(self, data: bytes) -> Sequence[Status]: ...


@dataclass(frozen=True, slots=True)
class Request:
    """A request for `size` bytes from `address` of each of `ids`, and the shape of its answer.

    After `head_bytes` the answer has one row of `row_bytes` for each servo, and the data begin at
    byte `data_at` of the row. `clean(received)` says whether the bytes are exactly that, without an
    alarm. If not, `parser()` finds the answers. `refusal` masks the bits of an error byte by which
    a servo refuses.
    """

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
        """Whether `status` fits this request. Answers to other requests have another size."""
        return len(status.params) == self.size or self.refused(status)

    def refused(self, status: Status) -> bool:
        """Whether the servo refused the request."""
        return bool(status.error & self.refusal)

    @property
    def answer_bytes(self) -> int:
        """The length of the whole answer."""
        return self.head_bytes + self.row_bytes * len(self.ids)


class Heard(dict[int, Status]):
    """The answers so far, by servo id.

    Servos answer in the order of `ids`. An answer ahead of its turn belongs to an earlier request,
    and is dropped when the next answer in turn shows that.
    """

    def __init__(self, ids: Sequence[int]) -> None:
        super().__init__()
        self._turn = {servo_id: turn for turn, servo_id in enumerate(ids)}

    @property
    def complete(self) -> bool:
        """Whether every servo has answered."""
        return len(self) == len(self._turn)

    def take(self, status: Status) -> None:
        """Take an answer. Answers of servos that were not asked are ignored."""
        turn = self._turn.get(status.id)
        if turn is None:
            return
        for servo_id in [servo_id for servo_id in self if self._turn[servo_id] >= turn]:
            del self[servo_id]
        self[status.id] = status


class BusWire:
    """Sends requests and waits for their answers. Two threads must not use it at the same time.

    A request first discards the bytes that have arrived, unless no answer was missing. Every method
    raises PortError when the port is gone.
    """

    def __init__(self, port: Port, clock: Clock) -> None:
        self._port = port
        self.clock = clock
        self._all_taken = False  # no answer is missing, and all bytes have been read
        self._owed = False  # an answer is missing
        self._free_ns = 0  # when the wire has carried all bytes sent
        # Of all readers on this bus: the sizes of the latest readings without a full answer, and
        # the time of the last of them. None: none lately.
        self.late_ns: int | None = None
        self.late_sizes: deque[int] = deque(maxlen=_LATE_SIZES)
        self.return_delay_ns: dict[int, int] = {}  # id -> delay before its answer

    def close(self) -> None:
        """Close the port."""
        self._port.close()

    def send(self, packet: bytes) -> None:
        """Send a packet that nobody answers."""
        self._port.write(packet)
        now_ns = self.clock.now_ns()
        self._free_ns = max(self._free_ns, now_ns) + len(packet) * self._port.ns_per_byte

    def settle(self, timeout_s: float) -> None:
        """Wait up to `timeout_s` for missing answers.

        A late answer looks like the answer to the next request, and may be of another register.
        """
        until_ns = self.clock.now_ns() + round(timeout_s * 1e9)
        while self._owed and (left_ns := until_ns - self.clock.now_ns()) > 0:
            self._owed = bool(self._port.read(left_ns * 1e-9))

    def answer_ns(self, ids: Sequence[int], n_bytes: int) -> int:
        """The shortest time that `ids` need for an answer of `n_bytes`; 0 if no time passes."""
        if not self._port.ns_per_byte:
            return 0
        delays_ns = sum(self.return_delay_ns.get(servo_id, 0) for servo_id in ids)
        return n_bytes * self._port.ns_per_byte + delays_ns

    def ask(
        self, request: Request, answer_ns: int, given_up: Collection[int], until_ns: int
    ) -> bytes | Heard:
        """Send `request`. Returns the bytes of a clean answer, else the answers found in them.

        Waits until `until_ns`, or for the duration of a good answer if that is longer. If only
        servos in `given_up` are missing, waits for the duration of a good answer.
        """
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
        """Send `packet`. Returns the fitting answers of `ids` that come within `timeout_s`."""
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
        """Find answers in `received` and in further bytes until all have come or time is over.

        After the deadline it reads once more, in case this process was stopped until then.
        """
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
