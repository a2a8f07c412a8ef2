"""robot.yaml against its model and against a bundle."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.config.robot_yaml import RunConfig
from runtime.fit import check_fit
from tests.runtime.conftest import manifest, run_config
from v2a.config import load_yaml
from v2a.errors import ConfigError

GOOD = """\
robot:
  name: two
  bus: {protocol: dynamixel2, port: /dev/ttyUSB0, baud: 1000000}
  joints:
    - {name: base, id: 1, model: xl430-w250, lower_rad: -2, upper_rad: 0.5, velocity_limit_rad_s: 3}
    - {name: tip, id: 2, model: xl430-w250, lower_rad: -0.5, upper_rad: 2, velocity_limit_rad_s: 1}
camera: {source: /dev/video0, fps: 30}
system2: {soft_age_s: 0.8, hard_age_s: 1.6}
instruction: push the cube
"""


def test_a_good_file_and_the_tighter_of_both_limits(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    file.write_text(GOOD)
    config = load_yaml(file, RunConfig)
    assert (config.frame_period_ns, config.control_period_ns) == (33_333_333, 20_000_000)
    limits = check_fit(config, manifest())  # its joints: -1..1 rad, 2 rad/s
    assert limits.names == ("base", "tip")
    assert limits.lower_rad.tolist() == [-1.0, -0.5]
    assert limits.upper_rad.tolist() == [0.5, 1.0]
    assert limits.velocity_rad_s.tolist() == [2.0, 1.0]


def test_every_fault_with_its_line(tmp_path: Path) -> None:
    file = tmp_path / "robot.yaml"
    text = GOOD.replace("soft_age_s: 0.8", "soft_age_s: 1.7").replace("fps: 30", "fsp: 30")
    file.write_text(text)
    with pytest.raises(ConfigError) as refusal:
        load_yaml(file, RunConfig)
    first, second = str(refusal.value).splitlines()
    assert first.endswith("robot.yaml:7: camera.fsp: unknown key, did you mean 'fps'?")
    assert "robot.yaml:8: system2.soft_age_s: must not be above hard_age_s" in second


def test_limits_without_a_common_range_are_refused() -> None:
    config = run_config()
    tip = config.robot.joints[1].model_copy(update={"lower_rad": 1.0, "upper_rad": 2.0})
    joints = (config.robot.joints[0], tip)
    robot = config.robot.model_copy(update={"joints": joints})
    with pytest.raises(ConfigError, match="joint tip: the ranges of robot and bundle do not"):
        check_fit(config.model_copy(update={"robot": robot}), manifest())


def test_the_number_of_joints_must_be_the_bundles() -> None:
    with pytest.raises(ConfigError, match=r"moves base, tip, grip; give robot\.joints"):
        check_fit(run_config(), manifest(joints=("base", "tip", "grip")))


def test_defaults_let_a_chunk_end_and_rest_before_it_is_too_old() -> None:
    config, space = run_config(), manifest().action_space
    slowest_chunk_s = 1.5 * (space.chunk_length - 1) * space.step_s + 0.08
    assert np.isfinite(slowest_chunk_s)
    assert config.control.command_age_max_s > slowest_chunk_s
