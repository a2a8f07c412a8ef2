"""The summary of a run: its times count from the run's start, not from the machine's."""

from __future__ import annotations

import numpy as np

from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.lockstep import CallbackCamera
from runtime.recording.recorder import Recorder
from runtime.safety.safety import Change, State
from runtime.summary import now, summarise
from runtime.workers import build_workers
from tests.runtime.conftest import fakes, make_chain, run_config
from v2a.bundle import Bundle
from v2a.clock import FakeClock
from v2a.spans import Tracer

UPTIME_NS = 10**15  # of a machine that has been on for days


def test_states_have_the_time_since_the_start_and_the_first_has_zero(bundle: Bundle) -> None:
    clock, tracer, config = FakeClock(start_ns=UPTIME_NS), Tracer(), run_config()
    robot = Robot(config.robot, clock, LoopbackPort(make_chain()))
    camera = CallbackCamera(lambda: np.zeros((8, 8, 3), np.uint8), clock)
    workers = build_workers(bundle, robot, camera, config, clock, tracer, engines=fakes())
    start = now(clock)
    changes = workers.control.safety.changes
    changes.append(Change(UPTIME_NS + 2_000_000_000, State.HOLD, "armed"))
    summary = summarise(workers, Recorder(tracer, workers.control.safety, None), start)
    assert [change.t_s for change in summary.safety] == [0.0, 2.0]
