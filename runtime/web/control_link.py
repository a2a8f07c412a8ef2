"""The live page's end of the socket pair to the control process (`runtime.control.outcome`)."""

from __future__ import annotations

import socket
import threading
from typing import Final

from runtime.control.outcome import BEAT, PERIOD_NS, Outcome
from runtime.control.wire import Link
from v2a.clock import Clock

WAIT_S: Final = 1.0


class ControlLink:
    """Sends presses to the control process, and keeps what it says.

    `outcome` is the newest outcome, None before the first. After `hung_up` nothing follows.
    """

    def __init__(self, end: socket.socket, clock: Clock) -> None:
        self.outcome: Outcome | None = None
        self.hung_up = False
        self._link = Link(end)
        self._clock = clock
        self._beat_ns = 0
        self._news = threading.Condition()

    def listen(self) -> None:
        """Read outcomes until the control process has ended."""
        try:
            while not self._link.hung_up:
                self._link.wait(WAIT_S)
                for packet in self._link.packets():
                    if outcome := Outcome.unpack(packet):
                        with self._news:
                            self.outcome = outcome
                            self._news.notify_all()
        finally:
            with self._news:
                self.hung_up = True
                self._news.notify_all()

    def press(self) -> None:
        """Ask the control process to stop. Never waits: a full queue is full of presses."""
        self._link.send(b"stop")

    def beat(self) -> None:
        """Show that the page's STOP is alive, at most every `PERIOD_NS`.

        Only the thread that takes presses may call this.
        """
        now_ns = self._clock.now_ns()
        if now_ns - self._beat_ns >= PERIOD_NS:
            self._beat_ns = now_ns
            self._link.send(BEAT)

    @property
    def ended(self) -> bool:
        """Whether nothing changes any more: the final outcome is there, or none will come."""
        return self.hung_up or (self.outcome is not None and self.outcome.final)

    def wait_until_ended(self, timeout_s: float) -> None:
        """Wait until `ended`, at most `timeout_s`."""
        with self._news:
            self._news.wait_for(lambda: self.ended, timeout_s)
