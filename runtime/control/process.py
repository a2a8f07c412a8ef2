"""The control process: `python -m runtime.control.process FD`, started by `ControlClient`.

A fresh interpreter, so that neither threads nor a GPU's context nor any package of the policy's
process come with it. It holds the only `Control`, hears the policy's packets before each tick and
tells of the tick behind it. It outlives a policy that dies, to bring the robot to rest.
"""

from __future__ import annotations

import dataclasses
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable
from itertools import takewhile
from typing import Any, Final, Literal

import numpy as np

from hw_drivers.robot.robot import Robot
from runtime.config.robot_yaml import RunConfig
from runtime.control.dry_run import virtual_robot
from runtime.control.grid import run_periodic
from runtime.control.loop import Control, Verb
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
from runtime.safety.health import health_to
from runtime.safety.motion_limiter import Limits
from runtime.safety.safety import Change
from v2a.clock import Clock, MonotonicClock
from v2a.errors import V2AError
from v2a.spans import SpanRing

RobotKind = Literal["real", "virtual"]
ROBOTS: Final = {"real": Robot, "virtual": virtual_robot}
VERBS: Final[tuple[Verb | Literal["end"], ...]] = ("arm", "disarm", "end")

NOTE_PERIOD_NS = 200_000_000
LAST_WORDS_S = 1.0
SPANS_MAX = 4096  # fit one packet, and 200 ms at 1 kHz have 600
# What there is to tell before there is a loop.
NOTHING: Final[dict[str, Any]] = {
    "changes": [],
    "counts": {},
    "safety_counts": {},
    "torque_fault": None,
    "health": None,
    "thread": {},
}


class ControlServer:
    """A `Control` on the other end of a link: what `run_periodic` runs here."""

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
        # Ctrl-C comes to this process, too: it works while the policy hangs.
        for number in SIGNALS:
            signal.signal(number, self._end_by_signal)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        self._control.open()
        ready = self.note(realtime=self._control.realtime, ready=True)
        self._link.send_last(ready, LAST_WORDS_S)
        run_periodic(self, self._clock, self.stopping)

    def _end_by_signal(self, *_: object) -> None:
        self._end = True

    def stopping(self) -> bool:
        # While torque is on, a policy that has died is safety's to judge, by its silence.
        return self._end or (self._link.hung_up and not self._control.safety.torque_on)

    def tick(self, now_ns: int, late_ns: int) -> None:
        self.hear()
        self._control.tick(now_ns, late_ns)
        if self._done.is_set():
            self._obeyed = self._number
        self._tell(now_ns)

    def hear(self) -> None:
        """Take what has come: the newest counts."""
        for packet in self._link.packets():
            _HEARD[packet[0]](self, packet)

    def note(self, **more: Any) -> bytes:
        """What happens seldom, packed; `more` is for the first and the last note."""
        control, changes = self._control, self._new_changes()
        content = {
            "changes": [[c.t_ns, c.state.value, c.reason] for c in changes],
            "counts": control.counts,
            "safety_counts": control.safety.counts,
            "torque_fault": control.torque_fault,
            "health": health_to(control.health),
            "thread": self._meter.times(),
        }
        return pack_json(NOTE, content | more)

    def spans(self) -> bytes:
        """What the ring has gathered since the last time, packed."""
        return bytes([SPANS]) + self._ring.drain().tobytes()

    def _new_changes(self) -> list[Change]:
        changes = reversed(self._control.safety.changes)
        return [*takewhile(lambda change: change is not self._told_change, changes)][::-1]

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
        """A change of state before the tick that shows it; nothing is waited for."""
        control = self._control
        due = now_ns - self._told_ns >= NOTE_PERIOD_NS
        if due or control.safety.changes[-1] is not self._told_change:
            if not self._link.send(self.note()):
                return  # the policy is behind; the next note has it all
            self._told_change = control.safety.changes[-1]
            self._told_ns = now_ns
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
    """Serve the policy's process at the socket whose descriptor is the only argument."""
    link = Link(socket.socket(fileno=int(sys.argv[1])))
    setup = _first(link)
    if setup is None:
        return
    ended: dict[str, Any] = {"ended": True}
    served = None
    try:
        served = _build(link, setup)
        served.run()
    except Exception as fault:
        if not isinstance(fault, V2AError):
            traceback.print_exc()
        ended |= {"error": type(fault).__name__, "text": str(fault)}
    if served is None:
        link.send_last(pack_json(NOTE, NOTHING | ended), LAST_WORDS_S)
        return
    served.close()
    link.send_last(served.spans(), LAST_WORDS_S)
    link.send_last(served.note(**ended), LAST_WORDS_S)


def _build(link: Link, setup: dict[str, Any]) -> ControlServer:
    config = RunConfig.model_validate(setup["config"])
    realtime = claim(config.control.core)
    if config.control.require_rt:
        demand(realtime)
    clock, mailboxes, ring = MonotonicClock(), Mailboxes(), SpanRing(SPANS_MAX)
    robot = ROBOTS[setup["robot"]](config.robot, clock)
    control = Control(robot, limits_from(setup["limits"]), config, mailboxes, clock, ring)
    control.realtime = realtime
    return ControlServer(control, link, mailboxes, clock, ring)


def limits_to(limits: Limits) -> dict[str, Any]:
    """As JSON has it."""
    return {
        name: list(value) if isinstance(value, tuple) else value.tolist()
        for name, value in (
            (field.name, getattr(limits, field.name)) for field in dataclasses.fields(limits)
        )
    }


def limits_from(found: dict[str, Any]) -> Limits:
    names = tuple(found.pop("names"))
    return Limits(names, **{name: np.array(value) for name, value in found.items()})


def _first(link: Link) -> dict[str, Any] | None:
    """The setup, or None where the policy has died or ended before it."""
    while not link.hung_up:
        link.wait(1.0)
        for packet in link.packets():
            return unpack_json(packet)
    return None


if __name__ == "__main__":
    main()
