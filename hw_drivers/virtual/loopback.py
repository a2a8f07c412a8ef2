"""A port wired to a virtual line in memory: no thread, no time, for lockstep runs and tests."""

from __future__ import annotations

from typing import Any

from hw_drivers.virtual.line import Line


class LoopbackPort:
    """A `Port` whose servos answer at once; nothing to read means nothing will come."""

    ns_per_byte = latency_ns = 0

    def __init__(self, line: Line[Any]) -> None:
        self._line = line
        self._received = b""

    def write(self, data: bytes) -> None:
        """See `Port`."""
        self._received += self._line.respond(data)

    def read(self, timeout_s: float) -> bytes:
        """See `Port`; never waits."""
        received, self._received = self._received, b""
        return received

    def reset_input(self) -> None:
        """See `Port`."""
        self._received = b""

    def close(self) -> None:
        """See `Port`."""
