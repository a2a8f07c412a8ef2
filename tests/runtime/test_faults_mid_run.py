"""Faults in the middle of a run, on servos behind a pseudo terminal: one line on stderr, torque
off, the recording kept.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.virtual.pty import PtyServer
from tests.runtime.conftest import make_chain, torques
from tests.runtime.control.outside import ROBOT_YAML, Simulator, run_command
from tests.runtime.recording.messages import states_of

pytestmark = pytest.mark.real_time


class Robot:
    """The servos of ROBOT_YAML behind a serial port, with the base where it may be armed."""

    def __init__(self, folder: Path) -> None:
        self.chain: VirtualDynamixelBus = make_chain()
        self.chain.servos[1].set_present_rad(0.5)
        self.pty = PtyServer(self.chain, moves=True)
        self._run = folder / "runs" / "two-1"
        text = ROBOT_YAML.replace("/dev/not-there", self.pty.path)
        # Patient where a busy test machine needs it: only what a test injects may go wrong.
        text += "control: {serial_faults_max: 125}\n"
        (folder / "robot.yaml").write_text(text.replace("timeout_s: 20", "timeout_s: 0.5"))

    def is_running(self) -> bool:
        """Armed, of which the last servo's watchdog is the last act, and recorded."""
        armed = self.chain.servos[2]["bus_watchdog"] != 0
        return armed and bool(states_of(self._run))


@pytest.fixture
def robot(folder: Path) -> Iterator[Robot]:
    robot = Robot(folder)
    yield robot
    robot.pty.close()


def once(condition: Callable[[], bool], action: Callable[[], object]) -> threading.Thread:
    """Do `action` in a thread as soon as `condition` holds."""

    def wait() -> None:
        while not condition():
            threading.Event().wait(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def recording(folder: Path) -> tuple[int, dict[str, object]]:
    """How many states were recorded, and the summary."""
    run_dir = folder / "runs" / "two-1"
    summary: dict[str, object] = json.loads((run_dir / "summary.json").read_text())
    return len(states_of(run_dir)), summary


def test_a_camera_that_stops_in_the_run_lets_go_of_the_arm(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    once(robot.is_running, simulator.close)
    result = run_command("--arm")
    assert result.exit_code == 5
    *_, error = result.stderr.partition("error: ")
    assert error == ("socket:camera.sock: no picture within 0.5 s; is the simulator running?\n")
    assert torques(robot.chain) == [False, False]
    states, summary = recording(folder)
    assert states > 0
    assert summary["torque_fault"] is None


def test_a_port_that_vanishes_in_the_run_says_that_torque_may_be_on(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    once(robot.is_running, robot.pty.hang_up)
    result = run_command("--arm")
    assert result.exit_code == 6
    said, _, error = result.stderr.partition("error: ")
    assert error.count("\n") == 1
    assert re.match(r"/dev/pts/\d+: vanished or was closed .+; check the cable", error)
    assert "warning: torque may still be on: base: " in said
    assert "cut the motors' power" in said
    assert recording(folder)[0] > 0


def test_a_servo_that_falls_silent_in_the_run_is_named(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    file = folder / "robot.yaml"
    file.write_text(file.read_text().replace("serial_faults_max: 125", "serial_faults_max: 20"))
    once(robot.is_running, lambda: robot.chain.servos.pop(2))
    result = run_command("--arm")
    assert result.exit_code == 7
    *_, error = result.stderr.partition("error: ")
    assert re.match("20 bad bus cycles in a row, the last: no answer from tip; check", error)
    assert torques(robot.chain) == [False]
    assert "warning: torque may still be on: tip: servo 2: no answer" in result.stderr


def test_an_arm_out_of_range_is_not_armed(folder: Path, robot: Robot, simulator: Simulator) -> None:
    robot.chain.servos[1].set_present_rad(-0.5)
    result = run_command("--arm")
    assert result.exit_code == 7
    *_, error = result.stderr.partition("error: ")
    assert re.match(r"can't arm: base is at -0\.5\d+ rad, outside 0\.300\.\.1\.000; move it", error)
    assert torques(robot.chain) == [False, False]


def test_pictures_stamped_by_another_clock_are_refused(folder: Path, robot: Robot) -> None:
    simulator = Simulator(folder / "camera.sock", ahead_ns=10**12)
    result = run_command("--arm")
    simulator.close()
    assert result.exit_code == 5
    assert re.search(
        r"error: picture \d+ has a time stamp .+ in the future; the cam", result.stderr
    )
    assert torques(robot.chain) == [False, False]
