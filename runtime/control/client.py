"""`ControlClient`: starts the control process and exchanges packets with it."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import threading
from collections.abc import Callable

import numpy as np

import v2a.errors
from runtime.config.robot_yaml import RunConfig
from runtime.control.last_resort import has_watchdogs, last_resort_torque_off
from runtime.control.loop import Verb
from runtime.control.notes import LimitsRow, Note, RobotKind, Setup
from runtime.control.outcome import describe_torque
from runtime.control.process import VERBS, EndVerb
from runtime.control.record import ControlRecord
from runtime.control.wire import (
    NOTE,
    SETUP,
    SPANS,
    TICK,
    Heartbeat,
    Link,
    Tick,
    pack_chunk,
    pack_json,
    unpack_json,
)
from runtime.host import process
from runtime.mailbox import ChunkMsg, Mailboxes
from runtime.safety.motion_limiter import Limits
from runtime.safety.safety import Change, SafetyRecord, State
from v2a import __version__
from v2a.clock import Clock
from v2a.errors import ConfigError, SafetyFault, V2AError
from v2a.output import say
from v2a.spans import SpanRing

BEAT_S = 0.02
START_S = 60.0  # the first import of numpy after a Jetson boots takes long
# Longer than any tick. Arming takes several requests to each servo, which a slow adapter delays.
CONTROL_LOST_S = 2.0
ARMING_LOST_S = 10.0
CLOSING_LOST_S = 10.0  # torque-off on a bus that does not answer takes seconds, without ticks
END_S = 5.0  # three torque-off tries for each of 14 silent servos take 1.7 s


class ControlClient(ControlRecord):
    """Exposes the same state and counters as `Control`, which runs in the control process.

    `open` starts the process. One client serves one run.
    """

    def __init__(
        self,
        robot: RobotKind,
        limits: Limits,
        config: RunConfig,
        mailboxes: Mailboxes,
        clock: Clock,
        ring: SpanRing,
    ) -> None:
        super().__init__(SafetyRecord())
        self.dry_run = robot == "virtual"
        self.period_ns = config.control_period_ns
        self._setup = Setup(
            version=__version__, robot=robot, limits=LimitsRow.of(limits), config=config
        )
        self._mailboxes = mailboxes
        self._clock = clock
        self._ring = ring
        self._number = self._verb = 0
        self._waiting: dict[int, threading.Event] = {}
        self._ready = False
        self._end: Note | None = None  # the control process's last words
        self._hurried = self._is_closing = False
        self._state_seq = self._beat_ns = 0
        self._asking = threading.Lock()
        self._closing = threading.Lock()
        self._opened = self._closed = False
        # The control process's end of a pair with the live page; `open` hands it on.
        self.page: socket.socket | None = None
        self.torque = {joint.name: "unknown" for joint in config.robot.joints}
        mailboxes.chunk.taps.append(self._send_chunk)

    @property
    def pid(self) -> int:
        """The process id of the control process, valid after `open`."""
        return self._process.pid

    def open(self) -> None:
        """Start the process, which connects the robot and begins to tick.

        Raises the error of a process that fails, unchanged, and SafetyFault if it does not start
        within `START_S`.
        """
        self._process, self._link = _spawn(self.page)
        self._opened = True
        if not self._link.send_last(pack_json(SETUP, self._setup), START_S):
            raise ConfigError("robot.yaml is too large to be sent to the control process")
        end_ns = self._clock.now_ns() + round(START_S * 1e9)
        while not self._ready:
            self._exchange()
            self._raise_if_gone()
            if self._clock.now_ns() > end_ns:
                raise SafetyFault(
                    f"the control process did not start within {START_S:g} s; try again"
                )

    def run(self, stopping: Callable[[], bool]) -> None:
        """Exchange packets until `stopping()`, then end gently.

        Raises the error that ended the control process, also on the way to the safe pose.
        """
        try:
            while not stopping():
                self._exchange()
                self._raise_if_gone()
                self._raise_if_silent()
            self._end_gently()
        finally:
            self.close()

    def hurry(self) -> None:
        """Let `run` end without the way to the safe pose, also when it is on that way already.

        A signal handler may call this: it takes no lock.
        """
        self._hurried = True

    def _end_gently(self) -> None:
        safety = self._setup.config.safety
        if self._hurried or safety.safe_pose_rad is None or not self.safety.torque_on:
            return
        self._ask("end_gently")
        longest_s = safety.safe_pose_timeout_s
        say(
            f"moving to the safe pose, {longest_s:g} s at most, then torque goes off; "
            "Ctrl-C lets go at once"
        )
        end_ns = self._clock.now_ns() + round((longest_s + END_S) * 1e9)
        while not (self._hurried or self._link.hung_up) and self._clock.now_ns() < end_ns:
            self._exchange()
        if self._link.hung_up and (self._end is None or self._end.error is not None):
            self._raise_if_gone()

    def request(self, verb: Verb) -> threading.Event:
        """Ask the loop to arm or disarm, like `Control.request`."""
        return self._ask(verb)

    def close(self) -> None:
        """Turn the torque off and end the process. If that fails, `torque_fault` says so."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            if not self._opened:
                return
            self._ask("end")
            end_ns = self._clock.now_ns() + round(END_S * 1e9)
            while not self._link.hung_up and self._clock.now_ns() < end_ns:
                self._exchange()
            self._link.close()
            self._end_process()
            if self._end is None and self.torque_fault is None:
                self._note_lost("did not say how it ended")

    def _end_process(self) -> None:
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            self._note_lost("hung and was killed")

    def _ask(self, verb: Verb | EndVerb) -> threading.Event:
        with self._asking:
            self._number += 1
            self._verb = VERBS.index(verb)
            done = self._waiting[self._number] = threading.Event()
        self._beat()
        return done

    def _exchange(self) -> None:
        if self._clock.now_ns() - self._beat_ns >= BEAT_S * 1e9:
            self._beat()
        self._link.wait(BEAT_S)
        for packet in self._link.packets():
            _HEARD[packet[0]](self, packet)

    def _beat(self) -> None:
        """Send a heartbeat. A lost one does no harm, because the next one says the same."""
        with self._asking:
            now_ns = self._beat_ns = self._clock.now_ns()
            beat = Heartbeat(now_ns, self._mailboxes.epoch.number, self._number, self._verb)
        self._link.send(beat.pack())

    def _send_chunk(self, chunk: ChunkMsg) -> None:
        if not self._link.send(pack_chunk(chunk)):
            self.counts["chunk_not_sent"] += 1

    def _tick(self, packet: bytes) -> None:
        tick = Tick.unpack(packet)
        self.told_ns = self._clock.now_ns()
        self.ticks = tick.ticks
        dict.update(self.missed_ticks, zip(self.missed_ticks, tick.missed, strict=True))
        self.add(tick.facts)
        if tick.state is not None and tick.state.seq > self._state_seq:
            self._state_seq = tick.state.seq
            self._mailboxes.state.put(tick.state, tick.state.t_publish_ns)
        with self._asking:
            for number in [n for n in self._waiting if n <= tick.obeyed]:
                self._waiting.pop(number).set()

    def _note(self, packet: bytes) -> None:
        note = unpack_json(packet, Note)
        self._ready |= note.ready
        self._is_closing |= note.closing
        self._end = note if note.ended else self._end
        self.safety.changes.extend(Change(*change) for change in note.changes)
        dict.update(self.counts, note.counts)
        dict.update(self.safety.counts, note.safety_counts)
        self.torque_fault = note.torque_fault
        self.stop_latch = note.stop_latch
        self.torque = note.torque or self.torque
        self.health = None if note.health is None else note.health.health()
        self.thread = note.thread
        self.realtime = note.realtime or self.realtime

    def _spans(self, packet: bytes) -> None:
        for row in np.frombuffer(packet, np.int64, offset=1).reshape(-1, 4).tolist():
            self._ring.add(*row)

    def _raise_if_gone(self) -> None:
        """If the control process has ended, raise its error unchanged."""
        if not self._link.hung_up:
            return
        end = self._end
        if end is not None and end.error is not None:
            kind = getattr(v2a.errors, end.error, None)
            if kind is None:
                raise V2AError(f"control process: {end.error}: {end.text}")
            raise kind(end.text)
        if end is not None:
            how = describe_torque(self.torque)
            raise SafetyFault(f"a signal ended the control process; {how}")
        code = self._process.wait(END_S)
        raise SafetyFault(self._note_lost(f"died (exit code {code})"))

    def _raise_if_silent(self) -> None:
        """Raise SafetyFault if ticks are missing: what we know of the arm is out of date."""
        now_ns = self._clock.now_ns()
        self.told_ns = self.told_ns or now_ns
        silent_s = (now_ns - self.told_ns) / 1e9
        patience_s = ARMING_LOST_S if self._waiting else CONTROL_LOST_S
        if silent_s > (CLOSING_LOST_S if self._is_closing else patience_s):
            how = f"was lost: it has sent no tick for {silent_s:.1f} s, and was killed"
            self._process.kill()  # a hung process holds the port, and its servos' torque
            self._process.wait(END_S)
            raise SafetyFault(self._note_lost(how))

    def _note_lost(self, how: str) -> str:
        """Record that the torque may still be on, and return what stops the arm now."""
        robot = self._setup.config.robot
        then = "the servos have no watchdog and move on to their last goal"
        self.torque = dict.fromkeys(self.torque, "unknown")
        if has_watchdogs(robot):
            then = f"the servos' watchdog stops them {robot.bus.watchdog_s:g} s later"
        elif self._setup.robot == "real":
            self.torque = last_resort_torque_off(robot, self._clock)
            stiff = [name for name, state in self.torque.items() if state != "off"]
            if not stiff:
                reason = f"the control process {how}: this process turned the torque off"
                self.safety.changes.append(Change(self._clock.now_ns(), State.FAULT, reason))
                return reason
            then += f" in {', '.join(stiff)}"
        self.torque_fault = (
            f"the control process {how}: {then}, with torque on; "
            "to turn it off: v2a motors release ROBOT.yaml, or cut the motors' power"
        )
        self.safety.changes.append(Change(self._clock.now_ns(), State.FAULT, self.torque_fault))
        return self.torque_fault


_HEARD: dict[int, Callable[[ControlClient, bytes], None]] = {
    TICK: ControlClient._tick,
    NOTE: ControlClient._note,
    SPANS: ControlClient._spans,
}


def _spawn(page: socket.socket | None) -> tuple[subprocess.Popen[bytes], Link]:
    """Start the process, and return it with our end of the link. `page` becomes the process's."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with contextlib.ExitStack() as handed_on:
        ends = [handed_on.enter_context(end) for end in (theirs, page) if end is not None]
        descriptors = [end.fileno() for end in ends]
        return process.start("runtime.control.process", *descriptors), Link(ours)
