"""How an armed run ends: real processes, and servos behind a pseudo terminal."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.virtual.pty import PtyServer
from tests.conftest import REPOSITORY
from tests.runtime.conftest import make_chain, torques
from tests.runtime.control.outside import ROBOT_YAML, Simulator
from tests.waiting import PATIENCE_S, until

pytestmark = pytest.mark.real_time

# Only what a test causes may go wrong, also on a busy machine.
PATIENT = (
    "control: {serial_faults_max: 125, command_age_max_s: 10}\n"
    "safety: {state_age_max_s: 2, policy_silent_s: 5, policy_lost_s: 10, hold_max_s: 60,"
    " estop: {socket: stop}"
)
SAFE_RAD = (0.9, 0.5)  # from (0.5, 0) at 1 rad/s: half a second away
COMMAND = (sys.executable, "-m", "v2a", "run", "robot.yaml", "--bundle", "bundle")


def press(path: Path) -> None:
    """Send a datagram to the emergency stop's socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(b"stop", str(path))


class Run:
    """`v2a run --arm` in a process group of its own, and the servos that it moves."""

    def __init__(self, folder: Path, safety: str = "") -> None:
        self.folder = folder
        self.chain = make_chain()
        base = self.chain.servos[1]
        base.rest_at(2048 + 0.5 * 4096 / math.tau)
        base._plant_owns_present = False  # from there it moves by itself
        self.pty = PtyServer(self.chain, moves=True)
        text = ROBOT_YAML.replace("/dev/not-there", self.pty.path)
        (folder / "robot.yaml").write_text(f"{text}{PATIENT}{safety}}}\n")
        self.process: subprocess.Popen[str]

    def start(self, *options: str, command: tuple[str, ...] = COMMAND, **streams: Any) -> Run:
        self.process = subprocess.Popen(
            [*command, "--arm", *options],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            stdout=streams.get("stdout", subprocess.PIPE),
            stderr=streams.get("stderr", subprocess.PIPE),
            text=True,
            start_new_session=True,
        )
        return self

    def armed(self) -> Run:
        """Wait until torque is on; the last servo's watchdog is the last act of arming."""
        last = self.chain.servos[2]
        until(lambda: torques(self.chain) == [True, True] and last["bus_watchdog"] != 0)
        return self

    def in_the_safe_pose(self) -> bool:
        with self.chain.lock:
            first, second = (servo["present_position"] for servo in self.chain.servos.values())
        angles = [(first - 2048) * math.tau / 4096, (1900 - second) * math.tau / 4096]
        return all(abs(a - b) < 0.1 for a, b in zip(angles, SAFE_RAD, strict=True))

    def limp(self) -> bool:
        return torques(self.chain) == [False, False]

    def on_its_way(self) -> None:
        """Wait until the run says that it moves to the safe pose."""
        assert self.process.stderr is not None
        assert any(line.startswith("moving to the safe pose") for line in self.process.stderr)

    def end(self) -> tuple[int, str, str]:
        out, err = self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode, out, err

    @property
    def states(self) -> list[str]:
        summary = json.loads((self.folder / "runs" / "two-1" / "summary.json").read_text())
        return [change["state"] for change in summary["safety"]]

    def close(self) -> None:
        with suppress(ProcessLookupError, AttributeError):
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.communicate()
        self.pty.close()


Make = Callable[..., Run]
GENTLE = f", safe_pose_rad: {list(SAFE_RAD)}"
# So slow that nothing arrives before a test is over.
FAR = f"{GENTLE}, safe_pose_timeout_s: 50"


@pytest.fixture
def make(filmed: Path) -> Iterator[Make]:
    runs: list[Run] = []

    def made(safety: str = "") -> Run:
        runs.append(Run(filmed, safety))
        return runs[-1]

    yield made
    for run in runs:
        run.close()


def slow(folder: Path) -> None:
    file = folder / "robot.yaml"
    file.write_text(
        file.read_text().replace("velocity_limit_rad_s: 1", "velocity_limit_rad_s: .05")
    )


@pytest.mark.parametrize("number", [signal.SIGQUIT, signal.SIGTSTP, signal.SIGUSR1, signal.SIGHUP])
def test_a_signal_to_the_terminals_group_lets_go_at_once(make: Make, number: int) -> None:
    run = make(GENTLE).start().armed()
    os.killpg(run.process.pid, number)
    code, _, err = run.end()
    assert code == 128 + number, err
    assert run.limp()
    assert "safe pose" not in run.states


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_signal_that_a_scripts_ampersand_had_ignored_is_heard(make: Make, number: int) -> None:
    script = f"trap '' INT QUIT; exec {' '.join(COMMAND)} \"$@\""
    run = make().start(command=("sh", "-c", script, "sh")).armed()
    run.process.send_signal(number)
    assert run.end()[0] == 128 + number
    assert run.limp()


def test_nohup_keeps_a_run_through_a_hang_up(make: Make) -> None:
    run = make().start(command=("sh", "-c", f"trap '' HUP; exec {' '.join(COMMAND)} \"$@\"", "sh"))
    run.armed()
    os.killpg(run.process.pid, signal.SIGHUP)
    time.sleep(0.5)
    assert run.process.poll() is None
    assert torques(run.chain) == [True, True]
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end()[0] == 143
    assert run.limp()


def test_the_end_of_the_time_goes_through_the_safe_pose(make: Make) -> None:
    run = make(GENTLE).start("--seconds", "1")
    code, _, err = run.end()
    assert code == 0, err
    assert "moving to the safe pose, 10 s at most, then torque goes off" in err
    assert run.limp()
    assert run.in_the_safe_pose()
    assert run.states[-2:] == ["safe pose", "torque off"]


def test_a_camera_that_fails_goes_through_the_safe_pose(
    make: Make, simulator: Simulator, folder: Path
) -> None:
    run = make(GENTLE)
    file = folder / "robot.yaml"
    file.write_text(file.read_text().replace("timeout_s: 20", "timeout_s: 0.5"))
    run.start().armed()
    simulator.close()
    code, _, err = run.end()
    assert code == 5, err
    assert run.limp()
    assert run.in_the_safe_pose()


def test_without_a_safe_pose_torque_goes_off_at_once(make: Make) -> None:
    run = make().start("--seconds", "1")
    assert run.end()[0] == 0
    assert run.limp()
    assert run.states[-1] == "disarmed"


@pytest.mark.parametrize("safety", [GENTLE, ""])
def test_a_policy_that_dies_is_lost_at_once_whatever_the_limits(make: Make, safety: str) -> None:
    run = make(safety).start().armed()
    start_s = time.monotonic()
    run.process.kill()
    until(run.limp)
    assert time.monotonic() - start_s < 30.0  # policy_lost_s is 60
    assert run.in_the_safe_pose() == bool(safety)


@pytest.mark.parametrize("whom", ["policy", "group"])
def test_ctrl_c_on_the_way_to_the_safe_pose_lets_go_at_once(
    make: Make, folder: Path, whom: str
) -> None:
    run = make(FAR)
    slow(folder)
    run.start("--seconds", "1")
    run.on_its_way()
    send = os.kill if whom == "policy" else os.killpg
    send(run.process.pid, signal.SIGINT)
    assert run.end()[0] == 130
    assert run.limp()
    assert not run.in_the_safe_pose()


def test_a_press_on_the_way_to_the_safe_pose_lets_go_at_once(make: Make, folder: Path) -> None:
    run = make(FAR)
    slow(folder)
    run.start("--seconds", "1")
    run.on_its_way()
    press(folder / "stop")
    code, _, err = run.end()
    assert code == 7
    assert "emergency stop by datagram" in err
    assert run.limp()
    assert not run.in_the_safe_pose()


def test_a_stop_stays_in_force_until_it_is_released(make: Make, folder: Path) -> None:
    run = make().start().armed()
    press(folder / "stop")
    code, _, err = run.end()
    assert code == 7
    assert "warning: the stop stays in force for the next run" in err
    code, _, err = run.start("--bundle", "not-there").end()  # refused before anything is loaded
    assert (code, err.count("\n")) == (7, 1)
    assert err.startswith("error: can't arm two: emergency stop by datagram to stop at 20")
    assert err.endswith("then release it: v2a robot clear-stop robot.yaml\n")
    clear = [sys.executable, "-m", "v2a", "robot", "clear-stop", "robot.yaml"]
    said = [subprocess.run(clear, cwd=folder, capture_output=True, text=True) for _ in range(2)]
    assert said[0].stdout.startswith("two: released: emergency stop by datagram to stop at 20")
    assert said[1].stdout == "two: no stop is in force\n"
    run.start().armed()
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end()[0] == 143


def test_a_stop_that_cannot_be_kept_is_said(
    make: Make, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("V2A_STATE_DIR", "/proc/1/no-folder")
    run = make().start().armed()
    press(folder / "stop")
    code, _, err = run.end()
    assert code == 7
    assert "warning: the stop could not be kept for the next run: [Errno" in err
    assert run.limp()


@pytest.mark.parametrize(
    ("where", "code"),
    [
        (">/dev/full 2>/dev/full", 0),
        ("2>/dev/full", 0),
        (">&- 2>&-", 0),
        ("2>&1 | true", 0),
        ("--json >/dev/full", 10),
    ],
)
def test_output_that_is_lost_ends_no_run(make: Make, where: str, code: int) -> None:
    script = f'set -o pipefail; {" ".join(COMMAND)} "$@" {where}'
    run = make(GENTLE).start("--seconds", "2", command=("bash", "-c", script, "bash"))
    assert run.end()[0] == code
    assert run.in_the_safe_pose()  # it went on to its end
    assert run.states[-2:] == ["safe pose", "torque off"]


def test_a_pipe_that_nobody_reads_holds_up_nothing(make: Make) -> None:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, False)
    with suppress(BlockingIOError):
        while True:
            os.write(theirs, b"x" * 4096)
    os.set_blocking(theirs, True)
    run = make().start("--seconds", "2", stdout=theirs, stderr=theirs)
    assert run.process.wait(PATIENCE_S) == 0  # only the summary is lost
    assert run.limp()
    assert run.states[-1] == "disarmed"
    os.close(ours)
    os.close(theirs)


def test_a_run_without_arm_leaves_a_holding_arm_as_it_is(make: Make, folder: Path) -> None:
    run = make()
    for servo in run.chain.servos.values():
        servo.write(64, b"\x01")
    done = subprocess.run(
        [*COMMAND, "--seconds", "1"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert torques(run.chain) == [True, True]
    assert "this run found torque on and leaves it so: base on, tip on" in done.stderr
    assert "v2a motors release" in done.stderr


def test_two_runs_on_one_port_the_second_is_refused_and_takes_nothing(
    make: Make, folder: Path
) -> None:
    run = make().start().armed()
    second = subprocess.run(
        [*COMMAND, "--arm", "--camera", "synthetic:"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert second.returncode == 2
    assert second.stderr == (
        "error: safety.estop.socket: stop: another run uses it; end that run, or give each robot a "
        "path of its own\n"
    )
    assert torques(run.chain) == [True, True]
    assert [each.name for each in (folder / "runs").iterdir()] == ["two-1"]
    os.killpg(run.process.pid, signal.SIGTERM)
    assert run.end()[0] == 143
