"""A port wired to a virtual chain in memory: no thread, no time, for lockstep runs and tests."""

from __future__ import annotations

from hw_drivers.virtual.chain import VirtualChain


class LoopbackPort:
    """A `Port` whose servos answer at once; nothing to read means nothing will come."""

    def __init__(self, chain: VirtualChain) -> None:
        self._chain = chain
        self._received = b""

    def write(self, data: bytes) -> None:
        """See `Port`."""
        self._received += self._chain.respond(data)

    def read(self, timeout_s: float) -> bytes:
        """See `Port`; never waits."""
        received, self._received = self._received, b""
        return received

    def reset_input(self) -> None:
        """See `Port`."""
        self._received = b""

    def close(self) -> None:
        """See `Port`."""
