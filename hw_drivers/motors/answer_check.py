"""Examines the bytes that came back on a bus: repeated answers, and bytes that are no answer."""

from __future__ import annotations

from dataclasses import dataclass

from hw_drivers.family import Packets
from hw_drivers.motors.recording import Exchange


@dataclass(frozen=True, slots=True)
class Verdict:
    """`twice`: the ids that answered more than once. `broken`: some bytes belong to no answer."""

    twice: frozenset[int] = frozenset()
    broken: bool = False


def judge(exchange: Exchange, packets: Packets) -> Verdict:
    """Examine one request and everything that came back after it."""
    rest = bytes(exchange.received)
    rest = rest.removeprefix(exchange.sent)  # the echo of some half-duplex adapters
    answers = packets.parser(exchange.sent).feed(rest)
    for answer in answers:
        rest = rest.replace(packets.make_status(answer.id, answer.error, answer.params), b"", 1)
    ids = [answer.id for answer in answers]
    twice = frozenset(servo_id for servo_id in ids if ids.count(servo_id) > 1)
    return Verdict(twice, broken=bool(rest))
