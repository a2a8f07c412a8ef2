"""A port wired to virtual servos in memory: no thread and no time, for lockstep runs and tests."""

from __future__ import annotations

from typing import Any

from hw_drivers.virtual.bus import VirtualBus


class LoopbackPort:
    """A `Port` whose servos answer at once. If there is nothing to read, nothing will come."""

    ns_per_byte = latency_ns = 0

    def __init__(self, bus: VirtualBus[Any]) -> None:
        self.bus = bus
        self._received = b""

    def write(self, data: bytes) -> None:
        """See `Port`."""
        self._received += self.bus.respond(data)

    def read(self, timeout_s: float) -> bytes:
        """See `Port`; never waits."""
        received, self._received = self._received, b""
        return received

    def reset_input(self) -> None:
        """See `Port`."""
        self._received = b""

    def close(self) -> None:
        """See `Port`."""
