"""Everything that a dry run leaves behind says that nothing real moved."""

from __future__ import annotations

import numpy as np
import pytest

from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.control.notes import RobotKind
from runtime.lockstep import CallbackCamera
from runtime.recording.recorder import Recorder
from runtime.summary import as_text, describe, summarise
from runtime.web.guard import Address
from runtime.web.start import web_sink, with_button
from runtime.web.view import View, snapshot
from runtime.workers import build_workers
from tests.runtime.conftest import fakes, make_chain, run_config
from v2a.bundle import Bundle
from v2a.clock import FakeClock
from v2a.spans import Tracer


@pytest.mark.parametrize(("kind", "dry_run"), [("virtual", True), ("real", False), (None, False)])
def test_summary_header_and_page_say_whether_it_is_a_dry_run(
    bundle: Bundle, kind: RobotKind | None, dry_run: bool
) -> None:
    clock, tracer = FakeClock(), Tracer()
    with with_button(run_config(safety={"hold_max_s": 60})) as config:
        robot = kind or Robot(config.robot, clock, LoopbackPort(make_chain()))
        camera = CallbackCamera(lambda: np.zeros((8, 8, 3), np.uint8), clock)
        workers = build_workers(bundle, robot, camera, config, clock, tracer, engines=fakes())
        summary = summarise(workers, Recorder(tracer, workers.control.safety, None), 0)
        about = web_sink(Address("127.0.0.1", 0), False, workers).options["about"]
    assert describe(workers, 0).dry_run is dry_run
    assert snapshot(View(about, clock), clock.now_ns()).dry_run is dry_run
    assert summary.dry_run is dry_run
    assert ("dry run" in as_text(summary)) is dry_run
    assert summary.loose_limits == ("safety.hold_max_s is 60, looser than the default 10",)
