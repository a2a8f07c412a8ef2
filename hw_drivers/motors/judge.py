"""What came back on a bus, byte by byte: who answered more than once, and what is no answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

from hw_drivers.bus.wire import Parser
from hw_drivers.dynamixel import packet as dynamixel_packet
from hw_drivers.feetech import packet as feetech_packet
from hw_drivers.motors.recording import Exchange


@dataclass(frozen=True, slots=True)
class Verdict:
    """The ids that answered more than once, and whether bytes are left over that are no answer."""

    twice: frozenset[int] = frozenset()
    broken: bool = False


class _StatusMaker(Protocol):
    def __call__(self, packet_id: int, error: int, params: bytes = b"", /) -> bytes: ...


@dataclass(frozen=True, slots=True)
class Packets:
    """What the judge needs to know of a protocol's packets."""

    max_id: int
    make_ping: Callable[[int], bytes]
    make_status: _StatusMaker
    parser: Callable[[bytes], Parser]  # for the answers to a request


def _feetech_parser(request: bytes) -> Parser:
    size = request[6] if request[4] == feetech_packet.READ else 0
    return feetech_packet.StatusParser(size)


PACKETS: Final = {
    "dynamixel2": Packets(
        dynamixel_packet.MAX_ID,
        dynamixel_packet.make_ping,
        dynamixel_packet.make_status,
        lambda _: dynamixel_packet.StatusParser(),
    ),
    "feetech": Packets(
        feetech_packet.MAX_ID,
        feetech_packet.make_ping,
        feetech_packet.make_status,
        _feetech_parser,
    ),
}


def judge(exchange: Exchange, packets: Packets) -> Verdict:
    """Look at one request and all that came after it."""
    rest = bytes(exchange.received)
    rest = rest.removeprefix(exchange.sent)  # the echo of some half-duplex adapters
    answers = packets.parser(exchange.sent).feed(rest)
    for answer in answers:
        rest = rest.replace(packets.make_status(answer.id, answer.error, answer.params), b"", 1)
    ids = [answer.id for answer in answers]
    twice = frozenset(servo_id for servo_id in ids if ids.count(servo_id) > 1)
    return Verdict(twice, broken=bool(rest))
