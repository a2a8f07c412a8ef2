"""A virtual chain behind a pseudo terminal, at the pace of a real wire.

Any program that opens a serial port can talk to it: this one, or the vendor's tools.
"""

from __future__ import annotations

import contextlib
import os
import select
import threading
import time
import tty

from hw_drivers.virtual.chain import VirtualChain

_BITS_PER_BYTE = 10  # 8N1: start bit, eight data bits, stop bit
_READ_BYTES = 4096


class PtyServer:
    """Serves `chain` at `path` in a thread. Replies come no earlier than the wire allows:
    10 bits per byte in both directions, and each servo's return delay."""

    def __init__(self, chain: VirtualChain, baud: int = 1_000_000) -> None:
        self._chain = chain
        self._ns_per_byte = _BITS_PER_BYTE * 1_000_000_000 // baud
        self._wire_free_ns = 0
        # The slave end stays open here: without any opener, reads on the master fail.
        self._master, self._slave = os.openpty()
        os.set_blocking(self._master, False)
        tty.setraw(self._slave)
        self.path = os.ttyname(self._slave)
        self._stop_reader, self._stop_writer = os.pipe()
        self._thread = threading.Thread(target=self._serve, name="virtual-bus", daemon=True)
        self._thread.start()

    def hang_up(self) -> None:
        """Pull the plug: whoever has `path` open sees the port vanish."""
        if self._thread.is_alive():
            os.write(self._stop_writer, b"x")
            self._thread.join()
            os.close(self._master)

    def close(self) -> None:
        """Stop serving and remove `path`; a second call does nothing."""
        self.hang_up()
        for fd in (self._slave, self._stop_reader, self._stop_writer):
            if fd >= 0:
                os.close(fd)
        self._slave = self._stop_reader = self._stop_writer = -1

    def _serve(self) -> None:
        while True:
            ready, _, _ = select.select([self._master, self._stop_reader], [], [])
            if self._stop_reader in ready:
                return
            self._answer(os.read(self._master, _READ_BYTES))

    def _answer(self, data: bytes) -> None:
        self._occupy_wire(len(data))
        for reply in self._chain.replies(data):
            self._wire_free_ns += round(reply.delay_s * 1e9)
            self._occupy_wire(len(reply.packet))
            time.sleep(max(0, self._wire_free_ns - time.monotonic_ns()) * 1e-9)
            # A full terminal means that nobody reads: on a wire those bytes would be lost, too.
            with contextlib.suppress(BlockingIOError):
                os.write(self._master, reply.packet)

    def _occupy_wire(self, n_bytes: int) -> None:
        start_ns = max(self._wire_free_ns, time.monotonic_ns())
        self._wire_free_ns = start_ns + n_bytes * self._ns_per_byte
