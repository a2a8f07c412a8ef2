"""A dry run with servos of every family, one that exists only in tests among them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from hw_drivers.family import FAMILIES, load_family
from hw_drivers.robot.robot import RobotConfig
from runtime.control.dry_run import virtual_robot
from tests.conftest import REPOSITORY
from v2a.clock import FakeClock

TOY = "tests.hw_drivers.toy.family"
ROW = f"from hw_drivers.family import FAMILIES\nFAMILIES['toy'] = {TOY!r}\n"
DRY_RUN = ("run", "robot.yaml", "--bundle", "bundle", "--dry-run", "--seconds", "1", "--json")
MODELS = (("dynamixel2", "xl430-w250"), ("feetech", "sts3215"), ("feetech", "scs0009"))


@pytest.fixture(autouse=True)
def row(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one row that the toy family needs."""
    monkeypatch.setitem(FAMILIES, "toy", TOY)


def robot_config(protocol: str, model: str) -> RobotConfig:
    joint = {"model": model, "velocity_limit_rad_s": 1.0}
    return RobotConfig.model_validate(
        {
            "name": "two",
            "bus": {"protocol": protocol, "port": "/dev/none", "baud": bauds(protocol)[0]},
            "joints": [
                {**joint, "name": "base", "id": 1, "lower_rad": 0.3, "upper_rad": 1.0},
                {**joint, "name": "tip", "id": 2, "lower_rad": -1.0, "upper_rad": 1.0,
                 "direction": -1},
            ],
        }
    )  # fmt: skip


def bauds(protocol: str) -> tuple[int, ...]:
    return load_family(protocol).bauds


@pytest.mark.parametrize(("protocol", "model"), [*MODELS, ("toy", "toy-1")])
def test_the_virtual_robot_rests_in_its_range_and_follows_goals(protocol: str, model: str) -> None:
    clock = FakeClock()
    robot = virtual_robot(robot_config(protocol, model), clock)
    robot.connect()
    np.testing.assert_allclose(robot.read_state().position_rad, [0.3, 0.0], atol=0.006)
    robot.enable_torque()
    robot.write_goal(np.array([0.5, -0.5]))
    for _ in range(20):  # at each request, time passes for the servos
        clock.sleep_until_ns(clock.now_ns() + 100_000_000)
        robot.read_state()
    np.testing.assert_allclose(robot.read_state().position_rad, [0.5, -0.5], atol=0.006)
    robot.disable_torque()


def test_the_virtual_robot_has_shadows_and_current_limits() -> None:
    data = robot_config("dynamixel2", "xm430-w350").model_dump(mode="json")
    data["joints"][1] |= {"shadow_id": 3, "current_limit_a": 0.5}
    clock = FakeClock()
    robot = virtual_robot(RobotConfig.model_validate(data), clock)
    robot.connect()
    robot.enable_torque()
    robot.write_goal(np.array([0.5, -0.5]))
    for _ in range(20):
        clock.sleep_until_ns(clock.now_ns() + 100_000_000)
        robot.read_state()
    positions = [robot.bus.read(servo_id, "present_position") for servo_id in (2, 3)]
    assert positions[0] == positions[1] != 2048


@pytest.mark.real_time
@pytest.mark.parametrize(("protocol", "model"), [("feetech", "sts3215"), ("toy", "toy-1")])
def test_v2a_run_dry_runs_a_robot_of_the_family(filmed: Path, protocol: str, model: str) -> None:
    text = (filmed / "robot.yaml").read_text().replace(", zero_tick: 1900", "")
    text = text.replace("dynamixel2", protocol).replace("xl430-w250", model)
    (filmed / "robot.yaml").write_text(text.replace("1000000", str(bauds(protocol)[0])))
    # The control process is an interpreter of its own, which needs the row, too.
    site = filmed / "site"  # the current folder is not on its path
    site.mkdir()
    (site / "sitecustomize.py").write_text(ROW)
    done = subprocess.run(
        [sys.executable, "-m", "v2a", *DRY_RUN],
        cwd=filmed,
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(site), str(REPOSITORY)))},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["ticks"] > 10
    assert summary["safety"][-1]["reason"] == "end of the run"
