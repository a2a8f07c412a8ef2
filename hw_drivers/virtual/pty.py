"""A virtual bus behind a pseudo terminal, at the pace of a real wire.

Any program that opens a serial port can talk to it, e.g. v2a or the vendor's tools.
"""

from __future__ import annotations

import ctypes
import math
import os
import select
import threading
from collections.abc import Iterable, Sequence
from itertools import groupby
from operator import itemgetter
from pathlib import Path
from typing import Any

from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.faults import PlantedFault
from hw_drivers.virtual.terminal import Terminal
from hw_drivers.virtual.wire_timing import BITS_PER_BYTE, Arrival, Reply, Unplug, Wire, gathered
from v2a.clock import Clock, MonotonicClock

_PR_SET_TIMERSLACK = 29  # <linux/prctl.h>; holds for the calling thread
_STEP_NS = 5_000_000
# A serial driver buffers one page before a writer has to wait (Linux, serial_core.c).
_TRANSMIT_BUFFER_BYTES = 4096


class PtyServer:
    """Serves a virtual bus at `path`, in a thread.

    Answers come no earlier than a wire allows: 10 bits per byte in both directions, each servo's
    return delay, and the latency timer of the host's adapter (16 ms by FTDI's factory setting). The
    servos are set up for `baud` in bit/s, and deaf to a program at another rate. With `baud` None,
    they hear every rate and the wire takes no time.

    With `moves`, time passes for the servos in this thread. Leave it off if a plant steps the bus.
    `fault` may be set at any time.
    """

    def __init__(
        self,
        bus: VirtualBus[Any],
        baud: int | None = 1_000_000,
        *,
        link: Path | None = None,
        fault: PlantedFault | None = None,
        latency_timer_s: float = 0.0,
        moves: bool = False,
        clock: Clock | None = None,
    ) -> None:
        """Start serving.

        Raises BusError for a rate that a servo lacks, PortError if `link` cannot be made.
        """
        self.fault = fault
        self._bus = bus
        self._paced = baud is not None
        if baud:
            bus.set_baud(baud)
        self._link = link
        self._latency_timer_ns = round(latency_timer_s * 1e9)
        self._moves = moves
        self._clock = clock or MonotonicClock()
        self._stepped_ns = self._clock.now_ns()
        self._wire = Wire()
        self._terminal: Terminal | None = None
        self._thread: threading.Thread | None = None
        self._plug_in()
        self._stopped, self._stop = os.pipe()
        self._start()

    @property
    def path(self) -> str:
        """The path that a program opens."""
        return str(self._link or self._device)

    def hang_up(self) -> None:
        """Pull the plug. A program that has `path` open sees the port vanish."""
        if self._thread:
            os.write(self._stop, b"x")
            self._thread.join()
            os.read(self._stopped, 1)
            self._thread = None
            self._pull_out()

    def replug(self) -> None:
        """Plug in again. The servos kept their power. Without a link, `path` is a new one."""
        self.hang_up()
        self._plug_in()
        self._start()

    def close(self) -> None:
        """Stop serving and remove `path`. A second call does nothing."""
        self.hang_up()
        for fd in (self._stopped, self._stop):
            if fd >= 0:
                os.close(fd)
        self._stopped = self._stop = -1

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._serve, name="virtual-bus", daemon=True)
        self._thread.start()

    def _plug_in(self) -> None:
        self._terminal = Terminal(self._link)
        self._device = self._terminal.device

    def _pull_out(self) -> None:
        if self._terminal:
            self._terminal.close()
        self._terminal = None

    def _serve(self) -> None:
        # By default Linux adds 50 us to every sleep. A byte at 4 Mbaud takes 2.5 us.
        ctypes.CDLL(None).prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0)
        while terminal := self._terminal:
            if self._stopped in self._wait([terminal.fd, self._stopped], math.inf):
                return
            if unplug := self._answer(terminal):
                self._pull_out()
                back_ns = self._clock.now_ns() + unplug.seconds * 1e9
                if self._wait([self._stopped], back_ns):
                    return
                self._plug_in()

    def _wait(self, fds: list[int], until_ns: float) -> list[int]:
        """Wait for `fds` and return the ready ones, [] at `until_ns`. Meanwhile the servos move."""
        timeless = not self._moves and until_ns == math.inf
        while self._clock.now_ns() < until_ns:
            ready, _, _ = select.select(fds, [], [], None if timeless else _STEP_NS * 1e-9)
            if self._moves:
                self._let_time_pass()
            if ready:
                return ready
        return []

    def _let_time_pass(self) -> None:
        while self._clock.now_ns() - self._stepped_ns >= _STEP_NS:
            self._bus.step(_STEP_NS * 1e-9)
            self._stepped_ns += _STEP_NS

    def _answer(self, terminal: Terminal) -> Unplug | None:
        """Answer the bytes that have come. Returns the `Unplug` if the cable comes out."""
        data, now_ns = terminal.read(), self._clock.now_ns()
        baud = max(terminal.baud(), 1) if self._paced else None
        ns_per_byte = BITS_PER_BYTE * 1_000_000_000 // baud if baud else 0
        replies = self._bus.replies(data, baud)
        self._wire.request(now_ns, len(data), ns_per_byte)
        arrivals = self._arrivals(data, replies, ns_per_byte)
        for at_ns, together in groupby(arrivals, key=itemgetter(0)):
            arrived = [what for _, what in together]
            self._clock.sleep_until_ns(at_ns)
            terminal.write(b"".join(what for what in arrived if isinstance(what, bytes)))
            if isinstance(unplug := arrived[-1], Unplug):
                return unplug
        self._clock.sleep_until_ns(self._wire.free_ns - _TRANSMIT_BUFFER_BYTES * ns_per_byte)
        return None

    def _arrivals(
        self, request: bytes, replies: list[Reply], ns_per_byte: int
    ) -> Iterable[Arrival]:
        events: Sequence[Reply | Unplug] = replies
        if fault := self.fault:
            with self._bus.lock:
                events = fault.strike(request, replies, self._bus.servos)
        arrivals = self._wire.answer(events, ns_per_byte)
        if not self._latency_timer_ns:
            return arrivals
        return gathered(arrivals, ns_per_byte, self._latency_timer_ns)
