"""Computes when bytes reach the other end of a half-duplex wire. It reads no clock."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

BITS_PER_BYTE = 10  # 8N1: start bit, eight data bits, stop bit
# An FT232 sends a USB packet when it holds this many bytes (64 minus two status bytes), or when its
# latency timer expires: FTDI AN232B-04, "Data Throughput, Latency and Handshaking".
_FTDI_PACKET_BYTES = 62


@dataclass(frozen=True, slots=True)
class Reply:
    """A servo's answer, and the servo's delay before it sends it."""

    delay_s: float
    packet: bytes
    servo_id: int


@dataclass(frozen=True, slots=True)
class Unplug:
    """The cable comes out, and is plugged in again after `seconds` (`inf`: never)."""

    seconds: float


Arrival = tuple[int, bytes | Unplug]  # (time in ns, the bytes that the host gets then)


class Wire:
    """Tracks the time at which the wire is free again.

    Answers are timed from the end of the request, so that a late simulator makes no servo late.
    """

    def __init__(self) -> None:
        self.free_ns = 0

    def request(self, now_ns: int, n_bytes: int, ns_per_byte: int) -> None:
        """Let the host send `n_bytes` now, or as soon as the wire is free."""
        self.free_ns = max(self.free_ns, now_ns) + n_bytes * ns_per_byte

    def answer(self, events: Iterable[Reply | Unplug], ns_per_byte: int) -> Iterator[Arrival]:
        """Yield when the last byte of each answer arrives. After an `Unplug`, nothing does."""
        for event in events:
            if isinstance(event, Unplug):
                yield self.free_ns, event
                return
            self.free_ns += round(event.delay_s * 1e9) + len(event.packet) * ns_per_byte
            yield self.free_ns, event.packet


def gathered(arrivals: Iterable[Arrival], ns_per_byte: int, period_ns: int) -> Iterator[Arrival]:
    """Delay `arrivals` as an adapter with a free-running latency timer of `period_ns` does."""
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
