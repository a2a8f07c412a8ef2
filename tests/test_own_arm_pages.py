"""The pages about one's own arm: every command in order, on virtual servos fresh from the box."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest.importorskip("onnxruntime", reason="the pages run a policy")

from hw_drivers.family import load_family
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.pty import PtyServer
from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(600)]

REACH_RAD = 0.9  # the hand moves each joint this far to both sides
STEP_RAD, STEP_S = 0.05, 0.01  # 5 rad/s: slow enough for a reading every 20 ms


class Page(NamedTuple):
    """A page, and what is in the box: the servos, and the rate that they leave the factory with."""

    name: str
    protocol: str
    models: tuple[str, ...]
    baud: int


PAGES = (
    Page("so101.md", "feetech", ("sts3215",) * 6, 1_000_000),
    Page("dynamixel_arm.md", "dynamixel2", ("xl430-w250",) * 2 + ("xl330-m288",) * 4, 57_600),
)


def commands(page: Page) -> list[str]:
    """The commands of the blocks marked `sh arm`, in order; a continued line is one command."""
    text = (REPOSITORY / "docs" / page.name).read_text()
    blocks = re.findall(r"^```sh arm\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line]


class Arm:
    """Six servos from the box: each comes alone to the bus first, all of them after that."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.folder = folder
        family = load_family(page.protocol)
        self._boxed = []
        for name in page.models:
            servo = family.virtual_servo(family.models[name], 1)
            servo.rest_at(family.models[name].turn_ticks // 2)
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
        """Move every joint by hand, to one end and to the other."""
        steps = round(REACH_RAD / STEP_RAD)
        way = [*range(steps), *range(steps, -steps, -1), *range(-steps, 1)]
        for k in way:
            with self.line.lock:
                for servo in self.line.servos.values():
                    servo.setpoint_rad = k * STEP_RAD
                    servo.set_present_rad(servo.setpoint_rad)
            time.sleep(STEP_S)

    def torque(self) -> set[int]:
        with self.line.lock:
            return {servo["torque_enable"] for servo in self.line.servos.values()}


@pytest.fixture(params=PAGES, ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Page:
    found: Page = request.param
    return found


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


def test_every_command_of_the_page_works_in_order(page: Page, arm: Arm) -> None:
    for command in commands(page):
        if "motors setup" in command:
            arm.next_servo()
        elif "motors doctor" in command:
            arm.all_servos()
        running = start(command, arm)
        play = calibrate if "calibrate" in command else lambda running, _: running.communicate()
        out, err = play(running, arm)
        # The virtual port has no name that stays after a replug; nothing else may be wrong.
        assert running.returncode == 0, f"{command}\n{out}\n{err}"
    assert sorted(arm.line.servos) == [1, 2, 3, 4, 5, 6]
    assert arm.torque() == {0}
