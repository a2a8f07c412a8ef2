"""The runtime in real threads, on a pseudo terminal: order, faults, and who waits for whom."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_drivers.cameras.camera import Frame
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.pty import PtyServer
from runtime.engines.base import EngineFactory
from runtime.recording.link import RecorderProcess
from runtime.recording.messages import ERROR, FATAL, WARNING, to_json
from runtime.recording.reader import Recording
from runtime.supervisor import Runtime
from runtime.workers import WORKERS, Workers, build_workers
from tests.runtime.conftest import SIZE, fakes, make_chain, run_config, torques
from tests.waiting import PATIENCE_S, until
from v2a.bundle import Bundle
from v2a.clock import MonotonicClock
from v2a.errors import BusError, CameraError, EngineError, PortError, SafetyFault
from v2a.spans import Tracer

pytestmark = pytest.mark.real_time


class TickingCamera:
    """A picture every 20 ms until `stopped` is set."""

    def __init__(self) -> None:
        self.stopped = threading.Event()
        self.closed = False
        self._seq = 0

    def read(self, timeout_s: float) -> Frame:
        if self.stopped.wait(0.02):
            raise CameraError("front: no picture within 2.0 s; check its cable")
        self._seq += 1
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        return Frame(self._seq, time.monotonic_ns(), 0, image)

    def close(self) -> None:
        self.closed = True


class Bench:
    """The two-joint robot behind a pseudo terminal, and the runtime that drives it."""

    def __init__(self, bundle: Bundle, engines: EngineFactory, record_dir: Path) -> None:
        self.chain = make_chain()
        self.pty = PtyServer(self.chain, moves=True)
        self.camera = TickingCamera()
        clock = MonotonicClock()
        # Patient where a busy test machine needs it: only what a test injects may go wrong.
        config = run_config(
            camera={"source": "test", "fps": 50},
            control={"serial_faults_max": 125, "rate_hz": 50},
            system2={"soft_age_s": 30, "hard_age_s": 30},
        )
        bus = config.robot.bus.model_copy(update={"port": self.pty.path, "watchdog_s": 2.0})
        robot = config.robot.model_copy(update={"bus": bus})
        self.workers: Workers = build_workers(
            bundle, Robot(robot, clock), self.camera, config, clock, Tracer(), engines=engines
        )
        self.runtime = Runtime(self.workers, record_dir)

    @property
    def ticks(self) -> int:
        return self.workers.control.ticks

    def chunk_seq(self) -> int:
        chunk = self.workers.mailboxes.chunk.get()
        return 0 if chunk is None else chunk.seq


@pytest.fixture
def make_bench(bundle: Bundle, tmp_path: Path) -> Iterator[Callable[..., Bench]]:
    benches: list[Bench] = []

    def make(engines: EngineFactory | None = None) -> Bench:
        benches.append(Bench(bundle, engines or fakes(), tmp_path / "run"))
        return benches[-1]

    yield make
    for bench in benches:
        bench.runtime.stop()
        bench.pty.close()


def test_a_run_moves_the_robot_records_it_and_leaves_it_limp(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make_bench()
    with bench.runtime as runtime:
        assert torques(bench.chain) == [False, False]
        runtime.arm()
        assert torques(bench.chain) == [True, True]
        until(lambda: bench.chain.servos[1]["goal_position"] > 2048 + 20)
        summary = runtime.summary()
    assert torques(bench.chain) == [False, False]
    assert bench.camera.closed
    assert set(summary.stages) >= {"capture", "denoise", "condition", "tick", "bus_read"}
    assert summary.ages["frame_to_motor"].n > 0
    assert (summary.scheduling or {}).keys() == {row.name for row in WORKERS}
    recording = Recording(tmp_path / "run")
    states = [state.seq for state in recording.states()]
    assert states == list(range(1, len(states) + 1))
    counts = recording.extent().messages
    assert all(counts[topic] for topic in ("/frame", "/condition", "/chunk", "/spans", "/safety"))
    assert to_json(recording.summary()) == to_json(runtime.summary())


def test_a_system_2_that_hangs_stops_neither_control_nor_system_1(
    make_bench: Callable[..., Bench],
) -> None:
    hang, hanging = threading.Event(), threading.Event()
    calls: list[int] = []

    def condition(feeds: object) -> dict[str, np.ndarray]:
        calls.append(1)
        if len(calls) > 3:  # the first is the warm-up
            hanging.set()
            assert hang.wait(PATIENCE_S)
        return {}

    bench = make_bench(fakes(condition=condition))
    with bench.runtime as runtime:
        runtime.arm()
        until(hanging.is_set)
        ticks, chunks = bench.ticks, bench.chunk_seq()
        until(lambda: bench.ticks >= ticks + 100 and bench.chunk_seq() >= chunks + 5)
        assert not hang.is_set()
        assert len(calls) == 4  # System 2 never came back
        assert torques(bench.chain) == [True, True]
        hang.set()
        runtime.wait(0.0)


def test_a_vanished_serial_port_ends_the_run_as_port_error_and_keeps_the_recording(
    make_bench: Callable[..., Bench], tmp_path: Path
) -> None:
    bench = make_bench()
    seen: set[int] = set()  # a tick with a bad reading has no state

    def enough() -> bool:
        state = bench.workers.mailboxes.state.get()
        seen.update(() if state is None else (state.seq,))
        return len(seen) > 20

    with bench.runtime as runtime:
        runtime.arm()
        until(enough)
        bench.pty.hang_up()
        with pytest.raises(PortError, match="vanished"):
            runtime.wait(PATIENCE_S)
        runtime.stop()
        summary = runtime.summary()
    assert summary.safety[-1].state == "fault"
    assert "vanished" in summary.safety[-1].reason
    assert (summary.torque_fault or "").startswith("torque may still be on: base: ")  # it was tried
    recording = Recording(tmp_path / "run")
    assert seen <= {state.seq for state in recording.states()}
    levels = {line.text: line.level for line in recording.log()}
    of_fault = {level for text, level in levels.items() if "vanished" in text}
    assert of_fault == {ERROR, FATAL}  # what ended the run, and the torque that it left
    assert {level for text, level in levels.items() if "looser than" in text} == {WARNING}


def test_a_recorder_process_that_is_killed_leaves_the_motors_alone(
    make_bench: Callable[..., Bench], capfd: pytest.CaptureFixture[str]
) -> None:
    bench = make_bench()
    with bench.runtime as runtime:
        runtime.arm()
        recorder = runtime._recorder
        assert isinstance(recorder._transport, RecorderProcess)
        os.kill(recorder._transport.pid, signal.SIGKILL)
        until(lambda: recorder.fault is not None)
        ticks, chunks = bench.ticks, bench.chunk_seq()
        until(lambda: bench.ticks >= ticks + 50 and bench.chunk_seq() >= chunks + 5)
        assert torques(bench.chain) == [True, True]
        summary = runtime.summary()
    assert "the recorder process died (exit code -9)" in (summary.recording_fault or "")
    assert summary.dropped.recorded_messages > 50
    assert capfd.readouterr().err.count("recorder process died") == 1


def test_a_camera_that_stops_ends_the_run_with_torque_off(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    with bench.runtime as runtime:
        runtime.arm()
        bench.camera.stopped.set()
        with pytest.raises(CameraError, match="no picture"):
            runtime.wait(PATIENCE_S)
        # The control loop lets go by itself, before anybody calls stop.
        until(lambda: torques(bench.chain) == [False, False])


def test_an_engine_that_fails_is_raised_as_itself(make_bench: Callable[..., Bench]) -> None:
    calls: list[int] = []

    def denoise(feeds: object) -> dict[str, np.ndarray]:
        calls.append(1)
        if len(calls) > 2:
            raise EngineError("graph denoise: out of memory")
        return {}

    bench = make_bench(fakes(denoise=denoise))
    with bench.runtime as runtime:
        with pytest.raises(EngineError, match="out of memory"):
            runtime.wait(PATIENCE_S)
        with pytest.raises(EngineError, match="out of memory"):
            runtime.arm()
    assert torques(bench.chain) == [False, False]


def test_stop_is_in_order_and_restores_the_interpreter(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    started: list[str] = []
    stopped: list[str] = []
    interval_s, threads = sys.getswitchinterval(), bench.runtime._threads
    start, stop = threads.start, threads.stop

    def noted_start(name: str, *rest: Any) -> None:
        started.append(name)
        start(name, *rest)

    def noted_stop(name: str, within_s: float) -> None:
        stopped.append(name)
        stop(name, within_s)

    monkeypatch.setattr(threads, "start", noted_start)
    monkeypatch.setattr(threads, "stop", noted_stop)
    with bench.runtime as runtime:
        runtime.arm()
        assert not gc.isenabled()
        names = {thread.name for thread in threading.enumerate()}
        assert names >= {row.name for row in WORKERS}
    assert started == ["recorder", "camera", "system2", "system1", "control"]
    assert stopped == started[::-1]
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0
    assert sys.getswitchinterval() == interval_s
    names = {thread.name for thread in threading.enumerate()}
    assert not names & {row.name for row in WORKERS}
    runtime.stop()  # twice is as once
    with pytest.raises(SafetyFault, match="not running; call start"):
        runtime.arm()


def test_a_robot_that_is_not_there_fails_the_start_and_closes_the_camera(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    del bench.chain.servos[2]
    with pytest.raises(BusError, match="tip"):
        bench.runtime.start()
    assert bench.camera.closed
    assert gc.isenabled()


class Cycle:
    """Refers to itself, so that only the garbage collector frees it."""

    def __init__(self) -> None:
        self.myself = self


def cycle() -> weakref.ref[Cycle]:
    return weakref.ref(Cycle())


def test_a_reset_begins_anew_while_the_robot_holds(make_bench: Callable[..., Bench]) -> None:
    bench = make_bench()
    with bench.runtime as runtime:
        runtime.arm()
        until(lambda: bench.chunk_seq() >= 2)
        assert runtime.reset() == 1

        def new_chunk() -> bool:
            chunk = bench.workers.mailboxes.chunk.get()
            return chunk is not None and chunk.epoch == 1

        until(new_chunk)
        assert torques(bench.chain) == [True, True]
        garbage = cycle()
        runtime.reset()
        assert garbage() is not None  # collecting it would stop the control loop
        runtime.disarm()
        assert torques(bench.chain) == [False, False]
        runtime.reset()
        assert garbage() is None


def test_an_arm_that_nobody_heard_is_not_obeyed_at_the_start(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()
    with pytest.raises(SafetyFault, match="not running; call start"):
        bench.runtime.arm()
    with bench.runtime:
        until(lambda: bench.ticks > 5)
        assert torques(bench.chain) == [False, False]


def test_a_stop_during_the_start_waits_for_it_and_leaves_nothing_running(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    connecting, go_on = threading.Event(), threading.Event()
    connect = bench.workers.control.open

    def slow() -> None:
        connecting.set()
        assert go_on.wait(PATIENCE_S)
        connect()

    monkeypatch.setattr(bench.workers.control, "open", slow)
    starting = threading.Thread(target=bench.runtime.start)
    starting.start()
    assert connecting.wait(PATIENCE_S)
    stopping = threading.Thread(target=bench.runtime.stop)
    stopping.start()
    go_on.set()
    for thread in (starting, stopping):
        thread.join(PATIENCE_S)
    assert not {thread.name for thread in threading.enumerate()} & {row.name for row in WORKERS}
    with pytest.raises(SafetyFault, match="not running"):
        bench.runtime.arm()


def test_a_worker_that_hangs_is_left_behind_and_said(
    make_bench: Callable[..., Bench],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr("runtime.workers.JOIN_S", 2.0)
    hang, hanging = threading.Event(), threading.Event()

    def condition(feeds: object) -> dict[str, np.ndarray]:
        if threading.current_thread().name == "system2":
            hanging.set()
            assert hang.wait(PATIENCE_S)
        return {}

    bench = make_bench(fakes(condition=condition))
    with bench.runtime as runtime:
        runtime.arm()
        until(hanging.is_set)
    left = [thread for thread in threading.enumerate() if thread.name == "system2"]
    hang.set()
    assert torques(bench.chain) == [False, False]
    assert runtime.summary().hung == ("system2",)
    said = "warning: system2 did not end within 2 s and was left behind"
    assert capsys.readouterr().err.splitlines().count(said) == 1
    for thread in left:
        thread.join()


def test_a_thread_that_can_not_be_scheduled_is_a_failure_like_any_other(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(nice: int, cores: set[int] | None) -> str:
        raise OSError(22, f"nice {nice}: no such priority")

    monkeypatch.setattr("runtime.threads._schedule", broken)
    bench = make_bench()
    with bench.runtime as runtime, pytest.raises(OSError, match="no such priority"):
        runtime.wait(PATIENCE_S)


def test_a_failure_that_nobody_asked_about_is_raised_at_the_end_of_the_block(
    make_bench: Callable[..., Bench],
) -> None:
    bench = make_bench()

    def run_without_asking() -> None:
        with bench.runtime:
            bench.camera.stopped.set()
            until(lambda: not bench.runtime._threads.running("camera"))

    with pytest.raises(CameraError, match="no picture"):
        run_without_asking()


def test_a_camera_that_falls_silent_first_at_the_end_is_no_failure(
    make_bench: Callable[..., Bench], monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = make_bench()
    close = bench.workers.control.close

    def close_and_silence_the_camera() -> None:
        close()
        bench.camera.stopped.set()
        until(lambda: not bench.runtime._threads.running("camera"))

    monkeypatch.setattr(bench.workers.control, "close", close_and_silence_the_camera)
    with bench.runtime as runtime:
        runtime.arm()
    assert bench.camera.stopped.is_set()  # it did fall silent
    runtime.wait(0.0)
