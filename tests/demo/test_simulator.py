"""The simulated robot as a process: what comes out of its serial port and its camera."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from demo import task
from demo.episodes import config_for
from demo.simulator import FRAME_S, Ended, Simulator
from hw_drivers.cameras.camera import Frame
from hw_drivers.cameras.datagram import SocketCamera
from hw_drivers.dynamixel.models import RAD_PER_TICK
from hw_drivers.robot.robot import Robot
from v2a.clock import MonotonicClock
from v2a.errors import CameraError, V2AError

pytestmark = pytest.mark.real_time

FRAME_NS = round(FRAME_S * 1e9)


@pytest.fixture(scope="module")
def camera_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("simulator") / "camera"


@pytest.fixture(scope="module")
def simulator(camera_path: Path) -> Iterator[Simulator]:
    with Simulator.start(camera_path) as simulator:
        yield simulator


def test_its_serial_port_is_that_of_the_robot(simulator: Simulator, camera_path: Path) -> None:
    scenario = task.scenario(1)
    simulator.set_scene(1, "puck")
    robot = Robot(config_for(simulator.port, camera_path).robot, MonotonicClock())
    robot.connect()
    with contextlib.closing(robot):
        state = robot.read_state()
    assert state.valid.all()
    np.testing.assert_allclose(state.position_rad, scenario.joints_rad, atol=RAD_PER_TICK)


def test_an_episode_sends_its_pictures_on_the_grid(simulator: Simulator, camera_path: Path) -> None:
    simulator.set_scene(2, "puck")
    frames: list[Frame] = []
    with contextlib.closing(SocketCamera(camera_path)) as camera, ThreadPoolExecutor(1) as pool:
        playing = pool.submit(simulator.play, keep_pictures=True)
        with contextlib.suppress(CameraError):  # the episode is over
            while True:
                frames.append(camera.read(timeout_s=10.0 if not frames else 1.0))
        ended = playing.result()
    assert (ended.result.seed, ended.result.level) == (2, "puck")
    assert not ended.result.success  # nobody moved the arm
    assert len(ended.pictures) == task.scenario(2).steps
    assert len(frames) > 1  # a busy reader may miss some
    since_ns = np.diff([frame.t_capture_ns for frame in frames])
    assert np.all(since_ns > 0)
    np.testing.assert_array_equal(since_ns, FRAME_NS * np.diff([frame.seq for frame in frames]))
    for frame in frames:
        np.testing.assert_array_equal(frame.image, ended.pictures[frame.seq - 1])


@pytest.fixture
def another(tmp_path: Path) -> Iterator[Simulator]:
    with Simulator.start(tmp_path / "camera") as simulator:
        yield simulator


@contextlib.contextmanager
def playing(simulator: Simulator, camera_path: Path) -> Iterator[Future[Ended]]:
    """An episode that is under way."""
    with contextlib.closing(SocketCamera(camera_path)) as camera, ThreadPoolExecutor(1) as pool:
        simulator.set_scene(4, "puck")
        asked = pool.submit(simulator.play)
        camera.read(timeout_s=10.0)
        yield asked


def kill(simulator: Simulator) -> None:
    assert simulator._process.pid is not None
    os.kill(simulator._process.pid, signal.SIGKILL)


def test_closing_leaves_no_process_even_during_an_episode(
    another: Simulator, tmp_path: Path
) -> None:
    with playing(another, tmp_path / "camera") as asked:
        another.close()
        with contextlib.suppress(V2AError):  # it may just have ended
            asked.result()
    assert another._process.exitcode is not None
    assert not os.path.exists(another.port)


def test_dying_during_an_episode_is_one_line(another: Simulator, tmp_path: Path) -> None:
    with playing(another, tmp_path / "camera") as asked:
        kill(another)
        with pytest.raises(V2AError, match=r"^the simulated robot's process has died.*$"):
            asked.result()


def test_having_died_between_episodes_is_one_line(another: Simulator) -> None:
    kill(another)
    for _ in range(2):  # the first may still find the pipe open
        with pytest.raises(V2AError, match=r"^the simulated robot's process has died.*$"):
            another.set_scene(5, "puck")
