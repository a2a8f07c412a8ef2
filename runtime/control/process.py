"""The control process: `python -m runtime.control.process FD`, started by `ControlClient`.

A new interpreter inherits no threads, GPU context or packages from the policy's process. The
process holds the only `Control`. It reads the policy's packets before each tick and sends the
result after it. If the policy dies, the process goes on until the robot is at rest.
"""

from __future__ import annotations

import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from itertools import takewhile
from typing import Final, Literal

from hw_drivers.robot.robot import Robot
from runtime.control.dry_run import virtual_robot
from runtime.control.grid import run_periodic
from runtime.control.loop import Control, Verb
from runtime.control.notes import Note, Setup
from runtime.control.wire import (
    BEAT,
    CHUNK,
    NOTE,
    SPANS,
    Heartbeat,
    Link,
    Tick,
    pack_json,
    unpack_chunk,
    unpack_json,
)
from runtime.host.process import SIGNALS
from runtime.host.realtime import claim, demand
from runtime.host.run_delay import ThreadMeter
from runtime.mailbox import Mailboxes
from runtime.safety.health import HealthRow
from runtime.safety.safety import Change
from v2a import __version__
from v2a.clock import Clock, MonotonicClock
from v2a.errors import ConfigError, V2AError
from v2a.spans import SpanRing

ROBOTS: Final = {"real": Robot, "virtual": virtual_robot}
VERBS: Final[tuple[Verb | Literal["end"], ...]] = ("arm", "disarm", "end")

NOTE_PERIOD_NS = 200_000_000
LAST_WORDS_S = 1.0
CHANGES_MAX = 10  # in one note; the next note has the rest
TEXT_MAX = 2000  # of an error
SPANS_MAX = 4096  # fits into one packet; 200 ms at 1 kHz give 600 spans


class ControlServer:
    """Runs a `Control` by `run_periodic`, and serves the policy's process over a link."""

    def __init__(
        self, control: Control, link: Link, mailboxes: Mailboxes, clock: Clock, ring: SpanRing
    ) -> None:
        self.period_ns = control.period_ns
        self.missed = control.missed
        self.close = control.close
        self._control = control
        self._link = link
        self._mailboxes = mailboxes
        self._clock = clock
        self._ring = ring
        self._meter = ThreadMeter()
        self._number = self._obeyed = 0
        self._done = threading.Event()
        self._end = False
        self._told_change = control.safety.changes[-1]
        self._told_ns = 0

    def run(self) -> None:
        """Open the robot and tick until the policy's process, a signal or safety ends it."""
        # Ctrl-C also reaches this process, so it works while the policy hangs.
        for number in SIGNALS:
            signal.signal(number, self._end_by_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._control.open()
        first = self.note([]).model_copy(update={"realtime": self._control.realtime, "ready": True})
        self._link.send_last(pack_json(NOTE, first), LAST_WORDS_S)
        run_periodic(self, self._clock, self.stopping)

    def _end_by_signal(self, *_: object) -> None:
        self._end = True

    def stopping(self) -> bool:
        """Return whether to end: after a signal or a request, or if the policy died."""
        # With torque on, safety notices the dead policy by its silence and brings the arm to rest.
        return self._end or (self._link.hung_up and not self._control.safety.torque_on)

    def tick(self, now_ns: int, late_ns: int) -> None:
        """Read the policy's packets, run one tick of the loop, and send its result."""
        self.hear()
        self._control.tick(now_ns, late_ns)
        self._tell(now_ns)

    def hear(self) -> None:
        """Read all packets that have arrived. The newest of each kind counts."""
        for packet in self._link.packets():
            _HEARD[packet[0]](self, packet)

    def note(self, changes: list[Change]) -> Note:
        """Return the part of the loop's state that is sent only every 200 ms.

        Its size is bounded, so that it always fits the link: see `CHANGES_MAX`, `EventCounts` and
        `REASON_MAX`.
        """
        control = self._control
        fault = control.torque_fault
        return Note(
            changes=tuple((c.t_ns, c.state, c.reason) for c in changes),
            counts=control.counts,
            safety_counts=control.safety.counts,
            torque_fault=fault and fault[:TEXT_MAX],
            health=None if control.health is None else HealthRow.of(control.health),
            thread=self._meter.times(),
        )

    def spans(self) -> bytes:
        """Pack the new spans of the ring: one byte for the kind, then int64 [n, 4]."""
        return bytes([SPANS]) + self._ring.drain().tobytes()

    def last_notes(self) -> Iterator[Note]:
        """Yield the notes that tell the rest of the changes, at least one."""
        more = True
        while more:
            changes = self._new_changes()
            yield self.note(changes)
            self._told_change = changes[-1] if changes else self._told_change
            more = bool(self._new_changes())

    def _new_changes(self) -> list[Change]:
        """Return the oldest changes that were not told yet, at most `CHANGES_MAX`."""
        changes = reversed(self._control.safety.changes)
        untold = [*takewhile(lambda change: change is not self._told_change, changes)]
        return untold[::-1][:CHANGES_MAX]

    def _beat(self, packet: bytes) -> None:
        beat = Heartbeat.unpack(packet)
        self._control.heard_ns = beat.t_ns
        self._follow(beat.epoch, beat.t_ns)
        if beat.number <= self._number:
            return
        self._number = beat.number
        verb = VERBS[beat.verb]
        if verb == "end":
            self._end = True
        else:
            self._done = self._control.request(verb)

    def _chunk(self, packet: bytes) -> None:
        chunk = unpack_chunk(packet)
        self._follow(chunk.epoch, chunk.t_publish_ns)
        self._mailboxes.chunk.put(chunk, chunk.t_publish_ns)

    def _follow(self, epoch: int, t_ns: int) -> None:
        if epoch > self._mailboxes.epoch.number:
            self._mailboxes.begin(epoch, t_ns)

    def _tell(self, now_ns: int) -> None:
        """Send a note if one is due, then a tick in every case. Never waits."""
        control = self._control
        due = now_ns - self._told_ns >= NOTE_PERIOD_NS
        changes = self._new_changes()
        # If it does not arrive, the policy is behind, and the next note says the same.
        if (due or changes) and self._link.send(pack_json(NOTE, self.note(changes))):
            self._told_change = changes[-1] if changes else self._told_change
            self._told_ns = now_ns
        if self._done.is_set() and self._told_change is control.safety.changes[-1]:
            self._obeyed = self._number  # the policy knows the state that came of it
        missed = tuple(control.missed_ticks.values())
        state = self._mailboxes.state.get()
        self._link.send(Tick(control.ticks, self._obeyed, missed, control.facts, state).pack())
        if due:
            self._link.send(self.spans())


_HEARD: dict[int, Callable[[ControlServer, bytes], None]] = {
    BEAT: ControlServer._beat,
    CHUNK: ControlServer._chunk,
}


def main() -> None:
    """Serve the policy's process. The only argument is the descriptor of the socket to it."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    setup = _first(link)
    if setup is None:
        return
    error, text, served = None, None, None
    try:
        served = _build(link, setup)
        served.run()
    except Exception as fault:
        if not isinstance(fault, V2AError):
            traceback.print_exc()
        error, text = type(fault).__name__, str(fault)
    last = Note()
    if served is not None:
        served.close()
        link.send_last(served.spans(), LAST_WORDS_S)
        for last in served.last_notes():
            if not link.send_last(pack_json(NOTE, last), LAST_WORDS_S):
                break  # nobody listens
        last = last.model_copy(update={"changes": ()})
    text = text and text[:TEXT_MAX]
    last = last.model_copy(update={"ended": True, "error": error, "text": text})
    link.send_last(pack_json(NOTE, last), LAST_WORDS_S)


def _build(link: Link, setup: Setup) -> ControlServer:
    """Build what `setup` asks for. Raises ConfigError if the policy's v2a is another version."""
    if setup.version != __version__:
        raise ConfigError(
            f"the control process is v2a {__version__}, the policy's process {setup.version}; "
            "install v2a anew"
        )
    config = setup.config
    realtime = claim(config.control.core)
    if config.control.require_rt:
        demand(realtime)
    clock, mailboxes, ring = MonotonicClock(), Mailboxes(), SpanRing(SPANS_MAX)
    robot = ROBOTS[setup.robot](config.robot, clock)
    control = Control(robot, setup.limits.limits(), config, mailboxes, clock, ring)
    control.realtime = realtime
    return ControlServer(control, link, mailboxes, clock, ring)


def _first(link: Link) -> Setup | None:
    """Return the setup, or None if the policy ended before it sent one."""
    while not link.hung_up:
        link.wait(1.0)
        for packet in link.packets():
            return unpack_json(packet, Setup)
    return None


if __name__ == "__main__":
    main()
