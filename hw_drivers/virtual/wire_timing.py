"""When bytes get to the other end of a half-duplex wire: times in, times out, no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BITS_PER_BYTE = 10  # 8N1: start bit, eight data bits, stop bit
# An FT232 sends a USB packet when it holds this many bytes (64 less two of status), or when its
# latency timer goes off: FTDI AN232B-04, "Data Throughput, Latency and Handshaking".
_FTDI_PACKET_BYTES = 62


@dataclass(frozen=True, slots=True)
class Reply:
    """A status packet, and how long the servo waits before it sends it."""

    delay_s: float
    packet: bytes
    servo_id: int


@dataclass(frozen=True, slots=True)
class Unplug:
    """The cable comes out, and goes in again after `seconds` (`inf`: never)."""

    seconds: float


Arrival = tuple[int, bytes | Unplug]  # at this time in ns, the host gets these bytes


class Wire:
    """Keeps the time at which the wire is free again. Servos are never late: answers count on from
    the end of the request, whenever the program that plays them gets to run."""

    def __init__(self) -> None:
        self.free_ns = 0

    def request(self, now_ns: int, n_bytes: int, ns_per_byte: int) -> None:
        """The host sends `n_bytes` now, or as soon as the wire is free."""
        self.free_ns = max(self.free_ns, now_ns) + n_bytes * ns_per_byte

    def answer(self, events: Iterable[Reply | Unplug], ns_per_byte: int) -> Iterator[Arrival]:
        """When the last byte of each answer has crossed the wire; nothing does without a cable."""
        for event in events:
            if isinstance(event, Unplug):
                yield self.free_ns, event
                return
            self.free_ns += round(event.delay_s * 1e9) + len(event.packet) * ns_per_byte
            yield self.free_ns, event.packet


def gathered(arrivals: Iterable[Arrival], ns_per_byte: int, period_ns: int) -> Iterator[Arrival]:
    """`arrivals` as the host gets them from an adapter with a latency timer, which runs freely."""
    held, due_ns = bytearray(), 0
    for end_ns, data in arrivals:
        if isinstance(data, Unplug):
            yield end_ns, data
            return
        for bytes_after, byte in zip(range(len(data) - 1, -1, -1), data, strict=True):
            t_ns = end_ns - bytes_after * ns_per_byte
            if held and t_ns > due_ns:
                yield due_ns, bytes(held)
                held.clear()
            if not held:
                due_ns = math.ceil(t_ns / period_ns) * period_ns
            held.append(byte)
            if len(held) == _FTDI_PACKET_BYTES:
                yield t_ns, bytes(held)
                held.clear()
    if held:
        yield due_ns, bytes(held)
