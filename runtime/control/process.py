"""The control process: `python -m runtime.control.process FD [PAGE]`, started by `ControlClient`.

A new interpreter inherits no threads, GPU context or packages from the policy's process. The
process holds the only `Control`. It reads the policy's packets before each tick and sends the
result after it. If the policy dies, the process goes on until the robot is at rest.

Ends that the policy's side causes are gentle: the arm moves to its safe pose first, if it has one.
A signal, a stop and a fault of the robot let go at once, also on the way to the safe pose.
"""

from __future__ import annotations

import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Final, Literal

from hw_drivers.robot.robot import Robot
from runtime.control.dry_run import virtual_robot
from runtime.control.grid import run_periodic
from runtime.control.loop import Control, Verb
from runtime.control.notes import Note, Setup
from runtime.control.outcome import PageEnd
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
from runtime.host.realtime import claim, demand
from runtime.host.run_delay import ThreadMeter
from runtime.mailbox import Mailboxes
from runtime.safety.health import HealthRow
from runtime.safety.safety import Change, State
from runtime.safety.stop_latch import keep, refuse_if_latched
from v2a import __version__
from v2a.clock import Clock, MonotonicClock
from v2a.errors import ConfigError, SafetyFault, V2AError
from v2a.output import expend_stderr, say
from v2a.signals import CRASHES, ENDS, heard
from v2a.spans import SpanRing

ROBOTS: Final = {"real": Robot, "virtual": virtual_robot}
EndVerb = Literal["end", "end_gently"]
VERBS: Final[tuple[Verb | EndVerb, ...]] = ("arm", "disarm", "end", "end_gently")

NOTE_PERIOD_NS = 200_000_000
LAST_WORDS_S = 1.0
CHANGES_MAX = 10  # in one note; the next note has the rest
TEXT_MAX = 2000  # of an error
SPANS_MAX = 4096  # fits into one packet; 200 ms at 1 kHz give 600 spans


class ControlServer:
    """Runs a `Control` by `run_periodic`, and serves the policy's process over a link."""

    def __init__(
        self,
        control: Control,
        link: Link,
        mailboxes: Mailboxes,
        clock: Clock,
        ring: SpanRing,
        refuse_arming: Callable[[], None],
    ) -> None:
        """`refuse_arming` raises SafetyFault if the robot must not be armed."""
        self.period_ns = control.period_ns
        self.missed = control.missed
        self.close = control.close
        self._control = control
        self._link = link
        self._mailboxes = mailboxes
        self._clock = clock
        self._ring = ring
        self._refuse_arming = refuse_arming
        self._meter = ThreadMeter()
        self._number = self._obeyed = 0
        self._done = threading.Event()
        self._end = False
        control.interrupted = lambda: self._end
        control.closing = self.tell_closing
        self.ending = False  # on the way to the safe pose, after which the process ends
        self._told_change = control.safety.changes[-1]
        self._told_ns = 0

    def run(self) -> None:
        """Open the robot and tick until the policy's process, a signal or safety ends it."""
        # Ctrl-C also reaches this process, so it works while the policy hangs.
        for number in heard():
            signal.signal(number, self._end_by_signal)
        signal.pthread_sigmask(signal.SIG_BLOCK, CRASHES)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, ENDS)
        self._control.open()
        first = self.note([]).model_copy(update={"realtime": self._control.realtime, "ready": True})
        self._link.send_last(pack_json(NOTE, first), LAST_WORDS_S)
        run_periodic(self, self._clock, self.stopping)

    def _end_by_signal(self, *_: object) -> None:
        self._end = True

    def stopping(self) -> bool:
        """Return whether to end: after a signal or a request, or if the policy died."""
        if self._link.hung_up:
            self._end_gently("the policy's process died")
        return self._end or signal.sigtimedwait(CRASHES, 0) is not None

    def tick(self, now_ns: int, late_ns: int) -> None:
        """Read the policy's packets, run one tick of the loop, and send its result."""
        self.hear()
        self._control.tick(now_ns, late_ns)
        self._tell(now_ns)

    def ended_gently(self, fault: Exception) -> bool:
        """Whether `fault` is only the torque-off at the end of the way to the safe pose."""
        safety = self._control.safety
        arrived = self.ending and isinstance(fault, SafetyFault) and safety.emergency is None
        return arrived and safety.state is State.TORQUE_OFF

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
            stop_latch=control.stop_latch,
            torque=dict(control.torque),
            health=None if control.health is None else HealthRow.of(control.health),
            thread=self._meter.times(),
        )

    def spans(self) -> bytes:
        """Pack the new spans of the ring: one byte for the kind, then int64 [n, 4]."""
        return bytes([SPANS]) + self._ring.drain().tobytes()

    def tell_closing(self) -> None:
        """Say that torque goes off now, so that nobody takes the missing ticks for a loss."""
        note = self.note([]).model_copy(update={"closing": True})
        self._link.send(pack_json(NOTE, note))

    def tell_outcome(self) -> None:
        """Send the final outcome to the page, after `close`."""
        if self._control.page is not None:
            self._control.page.tell_last(self._control)

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
        elif verb == "end_gently":
            self._end_gently("the policy's process ended the run")
        else:
            if verb == "arm":
                self._refuse_arming()
            self._done = self._control.request(verb)

    def keep_stop(self, setup: Setup) -> None:
        """If an emergency stop ended this run, keep it in force for the next ones."""
        source = self._control.safety.emergency
        if source is None or setup.robot == "virtual":
            return
        run = f"process {os.getppid()} in {Path.cwd()}"
        self._control.stop_latch = keep(setup.config.robot.name, source, run)

    def _end_gently(self, reason: str) -> None:
        """Move to the safe pose, then end. End at once without one, or with torque off."""
        self.ending = True
        if not self._control.end_gently(reason):
            self._end = True

    def _chunk(self, packet: bytes) -> None:
        chunk = unpack_chunk(packet)
        self._follow(chunk.epoch, chunk.t_publish_ns)
        self._mailboxes.chunk.put(chunk, chunk.t_publish_ns)

    def _follow(self, epoch: int, t_ns: int) -> None:
        if epoch > self._mailboxes.epoch.number:
            self._mailboxes.begin(epoch, t_ns)

    def _tell(self, now_ns: int) -> None:
        """Send the outcome to the page, a note if one is due, then a tick. Never waits."""
        control = self._control
        if control.page is not None:
            control.page.tell(control, now_ns)
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
    """Serve the policy's process.

    The arguments are the descriptor of the socket to it, and that of the socket to the live page
    if the run has one.
    """
    expend_stderr()
    policy_end, *others = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    link, page = Link(policy_end), PageEnd(others[0], MonotonicClock()) if others else None
    setup = _first(link)
    if setup is None:
        return
    error, text, served = None, None, None
    try:
        served = _build(link, setup, page)
        served.run()
    except Exception as fault:
        if not isinstance(fault, V2AError):
            say(traceback.format_exc().rstrip())
        if served is None or not served.ended_gently(fault):
            error, text = type(fault).__name__, str(fault)
    last = Note()
    if served is not None:
        served.close()
        served.tell_outcome()
        served.keep_stop(setup)
        link.send_last(served.spans(), LAST_WORDS_S)
        for last in served.last_notes():
            if not link.send_last(pack_json(NOTE, last), LAST_WORDS_S):
                break  # nobody listens
        last = last.model_copy(update={"changes": ()})
    text = text and text[:TEXT_MAX]
    last = last.model_copy(update={"ended": True, "error": error, "text": text})
    link.send_last(pack_json(NOTE, last), LAST_WORDS_S)


def _build(link: Link, setup: Setup, page: PageEnd | None) -> ControlServer:
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
    control.page = page
    refuse = partial(refuse_if_latched, config.robot.name) if setup.robot == "real" else _never
    return ControlServer(control, link, mailboxes, clock, ring, refuse)


def _never() -> None:
    """Refuse nothing: a virtual robot can be armed at any time."""


def _first(link: Link) -> Setup | None:
    """Return the setup, or None if the policy ended before it sent one."""
    while not link.hung_up:
        link.wait(1.0)
        for packet in link.packets():
            return unpack_json(packet, Setup)
    return None


if __name__ == "__main__":
    main()
