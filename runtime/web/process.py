"""The process of the live page: `python -m runtime.web.process LISTENER CONTROL FEED`.

The policy's process starts it before the control process. It lives as long as the control process,
whatever else dies, so STOP works while the policy hangs and while a dead policy's arm moves to its
safe pose. If this process dies or hangs, the control process hears no beat any more and stops.

It runs before other processes if the system allows that, unlike the recorder process, which may be
slow. Its work is bounded: viewers share answers and are paced. It ignores the signals that end a
run, because the run goes on until the control process has turned torque off.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Final

from runtime.recording.sinks import receive, send
from runtime.web.control_link import ControlLink
from runtime.web.guard import Guard
from runtime.web.routes import Room, Routes
from runtime.web.server import Server
from runtime.web.view import About, View
from v2a.clock import MonotonicClock

LAST_LOOK_NS: Final = 1_000_000_000  # after the control process ended: ten requests of a page
NICE: Final = -10  # a press acts within 100 ms beside 8 busy processes
# A thread waits for the GIL for about the switch interval. Python's default is 5 ms.
SWITCH_INTERVAL_S: Final = 0.0005


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to the page."""

    about: About
    token: str | None


def main() -> None:
    """Serve the page. The arguments are descriptors: a listening socket, the pair, the feed."""
    listener, control_end = (socket.socket(fileno=int(number)) for number in sys.argv[1:3])
    feed = Connection(int(sys.argv[3]))
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with suppress(PermissionError):  # then at normal priority
        os.nice(NICE)
    try:
        setup: Setup = receive(feed)
    except EOFError:
        return  # the policy's process died before it sent the setup
    clock = MonotonicClock()
    view, control = View(setup.about, clock), ControlLink(control_end, clock)
    threading.Thread(target=_take, args=(feed, view), daemon=True).start()
    threading.Thread(target=control.listen, daemon=True).start()
    server = Server(listener, Routes(Room(view, Guard(setup.token), control, clock)))
    send(feed, True)

    def over() -> bool:
        control.beat()
        return control.hung_up

    server.serve(over)
    until_ns = clock.now_ns() + LAST_LOOK_NS
    server.serve(lambda: clock.now_ns() > until_ns)


def _take(feed: Connection, view: View) -> None:
    """Take the run's messages until the recorder or the policy ends."""
    with suppress(EOFError, ConnectionError):
        while True:
            for message in receive(feed):
                view.take(message)


if __name__ == "__main__":
    main()
