"""The faults that a virtual bus can have, by name. Each is a function of one exchange.

They come from failures in the field: late, missing and damaged answers, noise and the local echo of
half-duplex adapters (ROBOTIS-GIT/DynamixelSDK#288, huggingface/lerobot#1252), overload that nobody
noticed (pollen-robotics/reachy_mini#1163), and adapters that vanish and come back.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from hw_drivers.virtual.servo import VirtualServo
from hw_drivers.virtual.wire_timing import Reply, Unplug

LATE_S = 0.2  # later than any deadline of a bus
REPLUG_S = 1.0
# The beginning of a Dynamixel packet, and of a Feetech packet. A parser must look behind it.
_NOISE = b"\x00\xff\xff\xfd\x00\x01"

Events = list[Reply | Unplug]


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answers. The fault strikes answer `at`. `earlier` is an older answer."""

    request: bytes
    replies: list[Reply]
    at: int
    earlier: Reply
    servos: Mapping[int, VirtualServo]

    @property
    def victim(self) -> Reply:
        """The answer that the fault strikes."""
        return self.replies[self.at]

    def instead(self, *events: Reply | Unplug) -> Events:
        """The answers, with `events` in place of the victim."""
        return [*self.replies[: self.at], *events, *self.replies[self.at + 1 :]]

    def damaged(self, packet: bytes) -> Events:
        """The answers, with `packet` as the victim's bytes."""
        return self.instead(replace(self.victim, packet=packet))


def _drop(exchange: Exchange) -> Events:
    """An answer is lost."""
    return exchange.instead()


def _crc(exchange: Exchange) -> Events:
    """An answer arrives with a wrong checksum."""
    packet = exchange.victim.packet
    return exchange.damaged(packet[:-1] + bytes((packet[-1] ^ 0xFF,)))


def _truncate(exchange: Exchange) -> Events:
    """The last bytes of an answer are lost."""
    return exchange.damaged(exchange.victim.packet[:-3])


def _noise(exchange: Exchange) -> Events:
    """Bytes that look like the beginning of a packet come before an answer."""
    return exchange.damaged(_NOISE + exchange.victim.packet)


def _stale(exchange: Exchange) -> Events:
    """The answer to an earlier request comes first."""
    return [replace(exchange.earlier, delay_s=0.0), *exchange.replies]


def _echo(exchange: Exchange) -> Events:
    """The adapter sends the request back before the answers."""
    return [replace(exchange.victim, packet=exchange.request, delay_s=0.0), *exchange.replies]


def _late(exchange: Exchange) -> Events:
    """An answer comes 0.2 s late."""
    return exchange.instead(replace(exchange.victim, delay_s=exchange.victim.delay_s + LATE_S))


def _alert(exchange: Exchange) -> Events:
    """A servo latches an overload: its torque goes off, its answers carry the alarm."""
    if servo := exchange.servos.get(exchange.victim.servo_id):  # unless it was given a new id
        servo.overload()
    return [*exchange.replies]


def _hang_up(exchange: Exchange) -> Events:
    """The cable comes out instead of an answer, for good."""
    return exchange.instead(Unplug(math.inf))


def _replug(exchange: Exchange) -> Events:
    """The cable comes out instead of an answer, and is back 1 s later; the servos keep power."""
    return exchange.instead(Unplug(REPLUG_S))


FAULTS: dict[str, Callable[[Exchange], Events]] = {
    "drop": _drop,
    "crc": _crc,
    "truncate": _truncate,
    "noise": _noise,
    "stale": _stale,
    "echo": _echo,
    "late": _late,
    "alert": _alert,
    "hang_up": _hang_up,
    "replug": _replug,
}


class PlantedFault:
    """Strikes every `every`-th answered request. Of several answers it strikes each in turn."""

    def __init__(self, name: str, every: int = 1) -> None:
        self._fault = FAULTS[name]
        self._every = every
        self._answered = 0
        self._earlier: Reply | None = None

    def strike(
        self, request: bytes, replies: list[Reply], servos: Mapping[int, VirtualServo]
    ) -> Events:
        """The events that take the place of `replies`. `servos`: id -> servo."""
        if not replies:
            return []
        earlier, self._earlier = self._earlier or replies[-1], replies[-1]
        self._answered += 1
        strikes, rest = divmod(self._answered, self._every)
        if rest:
            return [*replies]
        at = (strikes - 1) % len(replies)
        return self._fault(Exchange(request, replies, at, earlier, servos))
