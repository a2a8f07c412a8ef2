"""The control process: what it is told, what it tells, what it does when either side ends."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hw_drivers.feetech.models import MODELS as FEETECH
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.virtual.pty import PtyServer
from runtime.control.client import ControlClient
from runtime.control.loop import Verb
from runtime.control.notes import RobotKind
from runtime.fit import check_fit
from runtime.mailbox import ChunkMsg, Mailboxes, Vector
from runtime.safety.safety import State
from tests.conftest import REPOSITORY
from tests.runtime.conftest import K, manifest, run_config
from tests.waiting import PATIENCE_S, until
from v2a.clock import MonotonicClock
from v2a.errors import PortError, SafetyFault, V2AError
from v2a.spans import Tracer

pytestmark = pytest.mark.real_time

# Neither may a stall of a busy test machine look like the death of the policy.
PATIENT = {"policy_silent_s": 5.0, "policy_lost_s": 10.0, "hold_max_s": 60.0}
NEVER_THERE = ("cuda", "cv2", "onnxruntime", "tensorrt", "torch")


class Policy:
    """The policy side: a `ControlClient` run in a thread, and what it ended with."""

    def __init__(self, kind: RobotKind = "virtual", **parts: Any) -> None:
        safety = PATIENT | parts.pop("safety", {})
        config = run_config(safety=safety, **parts)
        self.boxes = Mailboxes()
        self.tracer = Tracer()
        self.clock = MonotonicClock()
        limits = check_fit(config, manifest())
        ring = self.tracer.ring("control")
        self.control = ControlClient(kind, limits, config, self.boxes, self.clock, ring)
        self.error: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def start(self) -> Policy:
        self.control.open()
        self._thread.start()
        return self

    def _run(self) -> None:
        try:
            self.control.run(self._stop.is_set)
        except Exception as error:
            self.error = error

    def join(self) -> Exception | None:
        """What it ended with by itself."""
        self._thread.join(PATIENCE_S)
        return self.error

    def close(self) -> None:
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join()
        self.control.close()

    def ask(self, verb: Verb) -> State:
        assert self.control.request(verb).wait(PATIENCE_S)
        return self.control.safety.state

    def chunk(self, target_rad: float, seq: int, epoch: int = 0) -> None:
        now_ns = self.clock.now_ns()
        rows = np.full((K, 2), target_rad)
        self.boxes.chunk.put(ChunkMsg(seq, now_ns, 0, 0, epoch, rows, 50_000_000, 0), now_ns)

    @property
    def command_rad(self) -> float:
        state = self.boxes.state.get()
        return 0.0 if state is None else float(state.command_rad[0])


@contextmanager
def running(**parts: Any) -> Iterator[Policy]:
    policy = Policy(**parts)
    try:
        yield policy.start()
    finally:
        policy.close()


def test_its_spans_name_the_chunk_in_play_and_its_notes_have_its_threads_times() -> None:
    with running() as policy:
        assert policy.ask("arm") is State.HOLD
        policy.chunk(0.1, seq=7)
        about: set[int] = set()

        def seen() -> bool:
            about.update(policy.tracer.drain()["control"][:, 3].tolist())
            return 7 in about and policy.control.thread is not None

        until(seen)
        assert about == {0, 7}
        assert policy.control.thread is not None
        assert set(policy.control.thread.model_dump()) <= {"cpu_s", "run_delay_ms"}


def test_it_arms_follows_chunks_and_lets_go() -> None:
    with running() as policy:
        control = policy.control
        before = control.safety.state
        assert before is State.DISARMED
        assert policy.ask("arm") is State.HOLD
        policy.chunk(0.2, seq=1)
        until(lambda: policy.command_rad > 0.15)
        assert control.safety.state is State.ARMED
        assert policy.ask("disarm") is State.DISARMED
        until(lambda: bool(policy.tracer.drain()["control"].size))
    assert control.ticks > 5
    assert control.frame_to_motor.count > 0
    assert len(control.seam_jumps_rad) == 1
    assert control.safety.counts["no chunk"] > 0
    assert control.safety.changes[-1].reason == "asked to"
    assert control.torque_fault is None
    assert set(control.realtime) == {"scheduling", "memory", "timer", "garbage collection"}


def test_a_reset_drops_the_chunk_in_hand_and_those_of_the_old_epoch() -> None:
    with running() as policy:
        policy.ask("arm")
        policy.chunk(0.5, seq=1)
        until(lambda: policy.control.safety.state is State.ARMED)
        epoch = policy.boxes.reset(policy.clock.now_ns())
        until(lambda: policy.control.safety.state is State.HOLD)
        assert policy.control.safety.changes[-1].reason == "no chunk"
        policy.chunk(-0.5, seq=2, epoch=epoch - 1)
        policy.chunk(0.6, seq=3, epoch=epoch)
        until(lambda: policy.control.safety.state is State.ARMED)
        assert policy.control.counts["chunk_past"] == 0


def test_it_is_one_thread_and_has_no_package_of_the_policys() -> None:
    with running() as policy:
        process = Path(f"/proc/{policy.control.pid}")
        assert [task.name for task in (process / "task").iterdir()] == [process.name]
        mapped = (process / "maps").read_text()
    assert "numpy" in mapped
    assert not [package for package in NEVER_THERE if f"/{package}/" in mapped]


def test_what_it_imports_is_none_of_the_policys() -> None:
    script = "import runtime.control.process, sys; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True
    )
    imported = {module.partition(".")[0] for module in done.stdout.split()}
    assert "numpy" in imported
    assert not imported & set(NEVER_THERE)


def test_what_ends_it_is_raised_as_itself() -> None:
    bus = {"protocol": "dynamixel2", "port": "/dev/not-there", "baud": 1_000_000}
    joints = run_config().model_dump()["robot"]["joints"]
    policy = Policy("real", robot={"name": "two", "bus": bus, "joints": joints})
    try:
        with pytest.raises(PortError, match="/dev/not-there: no such serial port"):
            policy.control.open()
    finally:
        policy.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, signal.SIGTSTP, signal.SIGSEGV, signal.SIGABRT, signal.SIGRTMIN]
)
def test_a_signal_lets_go_and_is_said(number: int) -> None:
    """Also one that reports a crash, if another program sends it."""
    with running() as policy:
        policy.ask("arm")
        os.kill(policy.control.pid, number)
        error = policy.join()
        assert isinstance(error, SafetyFault)
        assert str(error) == "a signal ended the control process; torque is off"
        assert policy.control.safety.changes[-1].reason == "end of the run"


def test_an_emergency_stop_by_datagram(tmp_path: Path) -> None:
    path = str(tmp_path / "estop")
    with running(safety={"estop": {"socket": path}}) as policy:
        policy.ask("arm")
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as button:
            button.sendto(b"stop", path)
        error = policy.join()
        assert isinstance(error, SafetyFault)
        assert f"emergency stop by datagram to {path}" in str(error)
        assert policy.control.safety.state is State.TORQUE_OFF
    assert not Path(path).exists()


def test_a_killed_one_is_said_with_what_stops_the_arm_now() -> None:
    with running() as policy:
        policy.ask("arm")
        os.kill(policy.control.pid, signal.SIGKILL)
        error = policy.join()
        assert isinstance(error, SafetyFault)
        assert "the control process died (exit code -9): the servos' watchdog" in str(error)
        assert policy.control.torque_fault == str(error)
        assert policy.control.safety.state is State.FAULT


def test_no_watchdog_is_promised_for_servos_that_have_none() -> None:
    robot = run_config().robot.model_dump()
    robot["bus"]["protocol"] = "feetech"
    for joint in robot["joints"]:
        joint["model"] = "sts3215"
    with running(robot=robot) as policy:
        policy.ask("arm")
        os.kill(policy.control.pid, signal.SIGKILL)
        error = str(policy.join())
        assert "the servos have no watchdog and move on to their last goal, with torque on" in error


def test_servos_without_a_watchdog_are_let_go_by_the_policys_process(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    robot = run_config().robot.model_dump()
    robot["bus"]["protocol"] = "feetech"
    for joint in robot["joints"]:
        joint["model"] = "sts3215"
    bus = VirtualFeetechBus([VirtualFeetech(FEETECH["sts3215"], servo_id) for servo_id in (1, 2)])
    with contextlib.closing(PtyServer(bus, moves=True)) as server:
        robot["bus"]["port"] = server.path
        with running(kind="real", robot=robot, control={"serial_faults_max": 125}) as policy:
            policy.ask("arm")
            assert all(servo.torque_on for servo in bus.servos.values())
            os.kill(policy.control.pid, signal.SIGKILL)
            error = str(policy.join())
            assert error.endswith("died (exit code -9): this process turned the torque off")
            assert policy.control.torque_fault is None
            assert policy.control.safety.state is State.FAULT
        assert not any(servo.torque_on for servo in bus.servos.values())


calls: list[int] = []  # of `broken`


def broken(position_rad: Vector) -> str | None:
    calls.append(1)
    if len(calls) == 1:
        return None  # the call at load
    raise ZeroDivisionError("a mistake in somebody's workspace")


def test_a_mistake_in_a_hook_is_a_fault_and_is_named(capfd: pytest.CaptureFixture[str]) -> None:
    with running(safety={"workspace": f"{__file__}:broken"}) as policy:
        policy.control.request("arm")
        error = policy.join()
        assert type(error) is V2AError
        assert str(error).startswith("control process: ZeroDivisionError: a mistake in")
        assert policy.control.safety.state is State.FAULT
    assert "Traceback" in capfd.readouterr().err


def test_an_end_without_last_words_confirms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that ends in silence, and a request to end it, are no proof of torque off."""
    with running() as policy:
        policy.ask("arm")
        monkeypatch.setattr("runtime.control.client.END_S", 0.0)
        os.kill(policy.control.pid, signal.SIGSTOP)
    assert "cut the motors' power" in str(policy.control.torque_fault)
    assert set(policy.control.torque.values()) == {"unknown"}


def test_one_that_never_opened_starts_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[tuple[object, ...]] = []
    monkeypatch.setattr("runtime.host.process.start", lambda *what: started.append(what))
    policy = Policy()
    policy.close()
    assert started == []
    assert policy.control.torque_fault is None
