"""A port that records the bytes that pass through it."""

from __future__ import annotations

from dataclasses import dataclass, field

from hw_drivers.bus.port import Port


@dataclass(slots=True)
class Exchange:
    """A request, and all bytes received until the next request."""

    sent: bytes
    received: bytearray = field(default_factory=bytearray)


class RecordingPort:
    """Passes everything to `port`, and keeps `exchanges`, oldest first. Clear them yourself."""

    def __init__(self, port: Port) -> None:
        self._port = port
        self.exchanges: list[Exchange] = []

    @property
    def ns_per_byte(self) -> int:
        """See `Port`."""
        return self._port.ns_per_byte

    @property
    def latency_ns(self) -> int:
        """See `Port`."""
        return self._port.latency_ns

    def write(self, data: bytes) -> None:
        """See `Port`."""
        self.exchanges.append(Exchange(data))
        self._port.write(data)

    def read(self, timeout_s: float) -> bytes:
        """See `Port`."""
        data = self._port.read(timeout_s)
        if self.exchanges:
            self.exchanges[-1].received += data
        return data

    def reset_input(self) -> None:
        """See `Port`."""
        self._port.reset_input()

    def close(self) -> None:
        """See `Port`."""
        self._port.close()
