"""Late in real threads: on a clock that only the control loop's own sleep moves.

No machine is slow on this clock. If the control loop waited for another thread, time would stand
still and the test would never end.
"""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from hw_drivers.cameras.camera import Frame
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.control.loop import Control
from runtime.mailbox import ChunkMsg, Message
from runtime.supervisor import Runtime
from runtime.workers import build_workers
from tests.runtime.conftest import SIZE, fakes, make_chain, run_config
from v2a.bundle import Bundle
from v2a.spans import Tracer

PATIENCE_S = 60.0
LATE_NS = 2_000_000_000
TICK_NS = 20_000_000


class ControlsClock:
    """Virtual time. `sleep_until_ns` is for the control loop, `wait_until_ns` for the others."""

    def __init__(self) -> None:
        self._now_ns = 0
        self._moved = threading.Condition()
        self._free = False

    def now_ns(self) -> int:
        return self._now_ns

    def utc_ns(self) -> int:
        return self._now_ns

    def sleep_until_ns(self, t_ns: int) -> None:
        time.sleep(0.005)  # so that the others get somewhere in the meantime
        with self._moved:
            self._now_ns = max(self._now_ns, t_ns)
            self._moved.notify_all()

    def wait_until_ns(self, t_ns: int) -> None:
        with self._moved:
            assert self._moved.wait_for(lambda: self._free or self._now_ns >= t_ns, PATIENCE_S)

    def free(self) -> None:
        """Nobody waits any more."""
        with self._moved:
            self._free = True
            self._moved.notify_all()


class GridCamera:
    """A black picture every 50 ms of `clock`."""

    def __init__(self, clock: ControlsClock) -> None:
        self._clock = clock
        self._seq = 0

    def read(self, timeout_s: float) -> Frame:
        self._clock.wait_until_ns((self._clock.now_ns() // 50_000_000 + 1) * 50_000_000)
        self._seq += 1
        return Frame(self._seq, self._clock.now_ns(), 0, np.zeros((SIZE, SIZE, 3), np.uint8))

    def close(self) -> None:
        """Nothing is held."""


def test_a_system_2_that_is_2_s_late_makes_no_control_tick_late_and_system_1_goes_on(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = ControlsClock()
    starts_ns: list[int] = []  # of each run of System 2
    late = threading.Event()

    def condition(feeds: object) -> dict[str, np.ndarray]:
        if threading.current_thread().name == "system2":
            starts_ns.append(clock.now_ns())
            if len(starts_ns) == 2:  # the first is in time
                clock.wait_until_ns(starts_ns[-1] + LATE_NS)
                late.set()
        return {}

    # However long, in its own time, the loop waits for the first chunk; the servos never move.
    config = run_config(
        system2={"soft_age_s": 1.0, "hard_age_s": 5.0},
        safety={"hold_max_s": 7200, "stall_s": 10, "stall_error_rad": 1.6},
    )
    robot = Robot(config.robot, clock, LoopbackPort(make_chain()))
    workers = build_workers(
        bundle, robot, GridCamera(clock), config, clock, Tracer(), fakes(condition=condition)
    )
    tick_ns: list[int] = []
    chunks: list[ChunkMsg] = []
    control = workers.control
    assert isinstance(control, Control)
    tick = control.tick

    def noted(now_ns: int, late_ns: int) -> None:
        tick_ns.append(now_ns)
        tick(now_ns, late_ns)

    monkeypatch.setattr(control, "tick", noted)

    def note(message: Message) -> None:
        assert isinstance(message, ChunkMsg)
        chunks.append(message)

    runtime = Runtime(workers)
    workers.mailboxes.chunk.taps.append(note)
    with runtime:
        runtime.arm()
        until_s = time.monotonic() + PATIENCE_S
        while not late.is_set():
            runtime.wait(0.05)  # raises what a worker failed with
            assert time.monotonic() < until_s
        clock.free()
    start_ns, end_ns = starts_ns[1], starts_ns[1] + LATE_NS
    inside = [t_ns for t_ns in tick_ns if start_ns <= t_ns < end_ns]
    assert np.diff(inside).tolist() == [TICK_NS] * (LATE_NS // TICK_NS - 1)
    assert control.missed_ticks["late"] == control.missed_ticks["bus"] == 0
    meanwhile = [chunk for chunk in chunks if start_ns < chunk.t_publish_ns < end_ns]
    ages_ns = [chunk.condition_age_ns for chunk in meanwhile]
    assert len(ages_ns) > 1
    assert ages_ns == sorted(ages_ns)
