"""The pages about one's own arm: every command in order, on virtual servos fresh from the box."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pytest

pytest.importorskip("onnxruntime", reason="the pages run a policy")

from hw_drivers.family import load_family
from hw_drivers.motors.where import load_robot
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.pty import PtyServer
from runtime.recording.reader import Recording
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.real_time, pytest.mark.alone, pytest.mark.timeout(600)]

STEP_RAD, STEP_S = 0.05, 0.01  # 5 rad/s: slow enough for a reading every 20 ms
END_S = 0.5  # a person stays at the end of a range for a moment
RAD_PER_TICK = math.tau / 4096
MOVED_RAD = 0.1  # in 5 s at 0.1 rad/s, from where the hand leaves a joint towards its middle


class Page(NamedTuple):
    """A page, what is in the box, and how the arm is built and moved by hand."""

    name: str
    protocol: str
    models: tuple[str, ...]
    baud: int  # that the servos leave the factory with
    ticks: tuple[int, ...]  # where the joints are when the arm is built: how the horns are mounted
    sweep_rad: tuple[float, float]  # how far the hand moves each joint from there
    moved_zeros: tuple[str, ...] = ()  # the joints that would have no 0 rad in their range


CENTRED = (2048,) * 6
ANYHOW = (3900, 200, 2048, 100, 4000, 2048)
PAGES = {
    "so101": Page("so101.md", "feetech", ("sts3215",) * 6, 1_000_000, CENTRED, (-0.9, 0.9)),
    "so101-horns-anyhow": Page(
        "so101.md", "feetech", ("sts3215",) * 6, 1_000_000, ANYHOW, (-1.7, 0.6),
        ("shoulder_pan", "shoulder_lift", "wrist_flex", "wrist_roll"),
    ),
    "dynamixel": Page(
        "dynamixel_arm.md", "dynamixel2", ("xl430-w250",) * 2 + ("xl330-m288",) * 4, 57_600,
        CENTRED, (-0.9, 0.9),
    ),
}  # fmt: skip


def commands(page: Page) -> list[str]:
    """The commands of the blocks marked `sh arm`, in order; a continued line is one command."""
    text = (REPOSITORY / "docs" / page.name).read_text()
    blocks = re.findall(r"^```sh arm\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


class Arm:
    """Six servos from the box: each comes alone to the bus first, all of them after that."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.folder = folder
        self._page = page
        family = load_family(page.protocol)
        self._boxed = []
        for name, tick in zip(page.models, page.ticks, strict=True):
            servo = family.virtual_servo(family.models[name], 1)
            servo.rest_at(tick)
            servo.set_baud(page.baud)
            self._boxed.append(servo)
        self._out = list(self._boxed)
        self.line: VirtualBus[Any] = family.virtual_bus([])
        self.pty = PtyServer(self.line, link=folder / "port", moves=True)

    def next_servo(self) -> None:
        """Connect the next servo of the box, alone."""
        self._connect([self._out.pop(0)])

    def all_servos(self) -> None:
        """Connect every servo, as the finished arm does."""
        self._connect(self._boxed)

    def _connect(self, servos: list[Any]) -> None:
        with self.line.lock:
            self.line.servos.clear()
            self.line.servos.update({servo["id"]: servo for servo in servos})

    def sweep(self) -> None:
        """Move every joint by hand, to one end and to the other, and let go near there."""
        lower, upper = (round(end_rad / STEP_RAD) for end_rad in self._page.sweep_rad)
        way = [*range(0, lower, -1), *range(lower, upper), *range(upper, upper - 5, -1)]
        for k in way:
            with self.line.lock:
                for servo, tick in zip(self._boxed, self._page.ticks, strict=True):
                    servo.rest_at(tick + k * STEP_RAD / RAD_PER_TICK)
            time.sleep(END_S if k in (lower, upper) else STEP_S)

    def settle(self) -> None:
        """Forget whole turns, which an encoder of one turn doesn't know but a virtual horn does."""
        with self.line.lock:
            for servo in self._boxed:
                servo.rest_at(servo["present_position"])

    def torque(self) -> set[int]:
        with self.line.lock:
            return {servo["torque_enable"] for servo in self.line.servos.values()}


@pytest.fixture(params=PAGES)
def page(request: pytest.FixtureRequest) -> Page:
    return PAGES[request.param]


@pytest.fixture
def arm(page: Page, tmp_path: Path) -> Iterator[Arm]:
    arm = Arm(page, tmp_path)
    yield arm
    arm.pty.close()


def start(command: str, arm: Arm) -> subprocess.Popen[str]:
    script = f'v2a() {{ "{sys.executable}" -m v2a "$@"; }}\n{command}'
    return subprocess.Popen(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=arm.folder,
        env={**os.environ, "PORT": str(arm.folder / "port"), "PYTHONPATH": str(REPOSITORY)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def calibrate(running: subprocess.Popen[str], arm: Arm) -> tuple[str, str]:
    """Play the person of the page: move the joints once asked to, then press Enter."""
    assert running.stderr
    assert running.stdin
    for said in running.stderr:
        if said.startswith("Move each joint"):
            break
    drained = threading.Thread(target=running.stderr.read, daemon=True)
    drained.start()
    time.sleep(1.0)  # a person begins later, too
    arm.sweep()
    running.stdin.write("\n")
    running.stdin.close()
    assert running.stdout
    with running.stdout as out:
        said = out.read()
    drained.join()
    running.stderr.close()
    running.wait()
    return said, ""


def ranges_rad(arm: Arm) -> dict[str, tuple[float, float]]:
    """The range of each joint in the page's robot.yaml."""
    (path,) = [path for path in arm.folder.glob("*.yaml") if "calibration" not in path.name]
    return {joint.name: (joint.lower_rad, joint.upper_rad) for joint in load_robot(path).joints}


def moved_rad(arm: Arm) -> npt.NDArray[np.float64]:
    """How far each joint moved in the page's last run, from its recording."""
    newest = max((arm.folder / "runs").iterdir(), key=lambda run: run.stat().st_mtime_ns)
    positions_rad = np.array([state.position_rad for state in Recording(newest).states()])
    moved: npt.NDArray[np.float64] = positions_rad.max(axis=0) - positions_rad.min(axis=0)
    return moved


def test_every_command_of_the_page_works_in_order(page: Page, arm: Arm) -> None:
    said = {}
    for command in commands(page):
        if "motors setup" in command:
            arm.next_servo()
        elif "motors doctor" in command:
            arm.all_servos()
        running = start(command, arm)
        play = calibrate if "calibrate" in command else lambda running, _: running.communicate()
        out, err = play(running, arm)
        if "calibrate" in command:
            arm.settle()
        # The virtual port has no name that stays after a replug; nothing else may be wrong.
        assert running.returncode == 0, f"{command}\n{out}\n{err}"
        said[command] = out
    assert sorted(arm.line.servos) == [1, 2, 3, 4, 5, 6]
    assert arm.torque() == {0}
    (calibrated,) = [out for command, out in said.items() if "calibrate" in command]
    moved_zeros = f"now in its middle: {', '.join(page.moved_zeros)}\n"
    assert (moved_zeros in calibrated) == bool(page.moved_zeros)
    half_rad = (page.sweep_rad[1] - page.sweep_rad[0]) / 2
    for joint, range_rad in ranges_rad(arm).items():
        wanted_rad = (-half_rad, half_rad) if joint in page.moved_zeros else page.sweep_rad
        assert range_rad == pytest.approx(wanted_rad, abs=STEP_RAD), joint
    assert min(moved_rad(arm)) > MOVED_RAD
