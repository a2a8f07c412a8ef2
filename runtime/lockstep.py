"""`Lockstep`: runs the same workers on a virtual clock, event by event, for studies and tests.

A worker computes at its start time, from the data of that time. Its result is published after a
random delay, and the worker is busy until then. The same seeds give the same bytes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from hw_drivers.cameras.camera import Frame
from runtime.control.loop import Control, Verb
from runtime.mailbox import Image, Mailbox, Message
from runtime.recording.link import InProcess
from runtime.recording.messages import Reset
from runtime.recording.recorder import RATE_HZ, Recorder
from runtime.summary import describe, now, summarise
from runtime.summary_model import RunSummary
from runtime.threads import PUBLISH, Worker
from runtime.workers import WORKERS, Stepping, Workers
from v2a.clock import Clock, FakeClock
from v2a.errors import SafetyFault

Delay = Callable[[np.random.Generator], int]  # nanoseconds
# The order of events at the same instant.
PUBLISHED, CAMERA, CONTROL, RECORD = range(4)
DRAIN_NS = round(1e9 / RATE_HZ)


class CallbackCamera:
    """A `Camera` for lockstep: each read calls `render()` for a picture, uint8 [H, W, 3] RGB."""

    def __init__(self, render: Callable[[], Image], clock: Clock) -> None:
        self._render = render
        self._clock = clock
        self._seq = 0

    def read(self, timeout_s: float) -> Frame:
        self._seq += 1
        return Frame(self._seq, self._clock.now_ns(), 0, self._render())

    def close(self) -> None:
        """Nothing to release."""


@dataclass(slots=True)
class Slot:
    """The state of one worker: its mailboxes, and whether it is busy."""

    worker: Worker
    inbox: Mailbox[Message] | None
    outbox: Mailbox[Message]
    busy: bool = False
    seen: int = -1  # seq of the last message that the worker took from its inbox


class Lockstep:
    """Runs `workers`, which share `clock`, in virtual time.

    `plant(now_ns)` moves the simulated world to the time of each event before it. `delays` maps a
    worker's name to its time from start to publication; a worker without one publishes at once.
    Call `reset` between episodes: it restarts the random delays from `seed` and the epoch. As in
    threads, a worker that is busy at the reset stays busy.
    """

    def __init__(
        self,
        workers: Workers,
        clock: FakeClock,
        plant: Callable[[int], None],
        delays: Mapping[str, Delay] | None = None,
        seed: int = 0,
        record_dir: Path | None = None,
    ) -> None:
        self._workers = workers
        assert isinstance(workers.control, Control), "lockstep ticks the control loop itself"
        self._control = workers.control
        self._clock = clock
        self._plant = plant
        self._delays = dict(delays or {})
        self._seed = seed
        self._rng = np.random.default_rng([seed, 0])
        safety = workers.control.safety
        self._recorder = Recorder(workers.tracer, safety, record_dir, transport=InProcess)
        self._events: list[tuple[int, int, int, Callable[[], None]]] = []
        self._pushed = 0
        self._start = now(clock)
        boxes = workers.mailboxes
        for mailbox in boxes.all():
            mailbox.taps.append(self._recorder.offer)
        self._slots = {
            row.name: Slot(*row.loop.wiring(workers))
            for row in WORKERS
            if isinstance(row.loop, Stepping)
        }

    def start(self) -> Lockstep:
        """Connect the robot, warm the engines, and start the grids of camera and control loop."""
        self._start = now(self._clock)
        now_ns = self._start.monotonic_ns
        self._recorder.open(describe(self._workers, self._start))
        self._workers.prepare()
        config = self._workers.config
        for name, slot in self._slots.items():
            if slot.inbox is None:
                self._every(config.frame_period_ns, now_ns, CAMERA, partial(self._step, name))
        self._every(config.control_period_ns, now_ns, CONTROL, self._tick)
        self._every(DRAIN_NS, now_ns + DRAIN_NS, RECORD, self._recorder.drain)
        return self

    def stop(self) -> None:
        """Turn the torque off and close everything."""
        self._workers.close()
        self._recorder.close()

    def run(self, seconds: float, until: Callable[[], bool] = lambda: False) -> None:
        """Run for `seconds` of virtual time, or until `until()` is true after an event.

        If a worker raises an error, the torque goes off first, then the error is raised here.
        """
        end_ns = self._clock.now_ns() + round(seconds * 1e9)
        try:
            while self._events[0][0] <= end_ns:
                t_ns, _, _, action = heapq.heappop(self._events)
                self._go_to(t_ns)
                action()
                if until():
                    return
        except BaseException:
            self._control.close()
            raise
        self._go_to(end_ns)

    def arm(self) -> None:
        """Turn the torque on at the next control tick. The arm holds until the first chunk."""
        self._ask("arm")

    def disarm(self) -> None:
        """Turn the torque off at the next control tick."""
        self._ask("disarm")

    def reset(self, instruction: str | None = None) -> int:
        """Begin a new episode and return its epoch."""
        if instruction is not None:
            self._workers.set_instruction(instruction)
        now_ns = self._clock.now_ns()
        epoch = self._workers.mailboxes.reset(now_ns)
        self._recorder.offer(Reset(now_ns, epoch, instruction))
        self._rng = np.random.default_rng([self._seed, epoch])
        return epoch

    def summary(self) -> RunSummary:
        """Return the summary of the run so far, in virtual time."""
        return summarise(self._workers, self._recorder, self._start)

    def __enter__(self) -> Lockstep:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, verb: Verb) -> None:
        control = self._control
        done = control.request(verb)
        self.run(2 * self._workers.config.control_period_ns / 1e9, done.is_set)
        if not done.is_set():
            control.request("disarm")  # replaces the request, which must not take effect later
            raise SafetyFault(
                f"could not {verb}: a servo did not answer in two control ticks; check the bus"
            )

    def _go_to(self, t_ns: int) -> None:
        self._clock.sleep_until_ns(t_ns)
        self._plant(t_ns)

    def _at(self, t_ns: int, order: int, action: Callable[[], None]) -> None:
        self._pushed += 1
        heapq.heappush(self._events, (t_ns, order, self._pushed, action))

    def _every(self, period_ns: int, t_ns: int, order: int, action: Callable[[], None]) -> None:
        """Schedule `action` at `t_ns` and once per period after that."""

        def again() -> None:
            self._every(period_ns, t_ns + period_ns, order, action)
            action()

        self._at(t_ns, order, again)

    def _tick(self) -> None:
        self._control.tick(self._clock.now_ns())

    def _step(self, name: str) -> None:
        """Start the worker if it is free and has a new message; its result comes after a delay."""
        slot = self._slots[name]
        if slot.busy or not _news(slot):
            return
        now_ns = self._clock.now_ns()
        message = slot.worker.step(now_ns)
        if message is None:
            return
        slot.busy = True
        self._at(now_ns + self._draw(name), PUBLISHED, lambda: self._publish(name, message))

    def _publish(self, name: str, message: Message) -> None:
        slot = self._slots[name]
        slot.busy = False
        now_ns = self._clock.now_ns()
        slot.outbox.put(message, now_ns)
        slot.worker.ring.add(PUBLISH, now_ns, now_ns, message.seq)
        for reader, other in self._slots.items():
            if other.inbox is not None and (other.inbox is slot.outbox or reader == name):
                self._step(reader)

    def _draw(self, name: str) -> int:
        return max(int(self._delays[name](self._rng)), 0) if name in self._delays else 0


def _news(slot: Slot) -> bool:
    """Return whether the inbox has a message that the worker has not taken, and mark it taken."""
    if slot.inbox is None:
        return True
    message = slot.inbox.get()
    if message is None or message.seq <= slot.seen:
        return False
    slot.seen = message.seq
    return True
