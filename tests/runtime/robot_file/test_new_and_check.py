"""`v2a robot new` and `check`: from servos on a bus to a file that describes them, and back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hw_drivers.family import FAMILIES, load_family
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.pty import PtyServer
from runtime.config.robot_yaml import RunConfig
from v2a.cli import cli
from v2a.config import load_yaml

SERVOS = {"dynamixel2": "xl330-m288", "feetech": "sts3215"}
REMEMBERED = ("torque_enable", "goal_position", "min_position_limit", "max_position_limit")
NAMED = ("--joint", "base=sts3215:1", "--joint", "tip=sts3215:2")


def robot(*words: object) -> Result:
    return CliRunner().invoke(cli, ["robot", *map(str, words)])


@pytest.fixture(params=FAMILIES)
def line(request: pytest.FixtureRequest) -> VirtualBus[Any]:
    """Two servos at rest in the middle of their turn."""
    family = load_family(request.param)
    model = family.models[SERVOS[request.param]]
    servos = [family.virtual_servo(model, servo_id) for servo_id in (1, 2)]
    for servo in servos:
        servo.rest_at(model.turn_ticks // 2)
    return family.virtual_bus(servos)


@pytest.fixture
def port(line: VirtualBus[Any]) -> Iterator[str]:
    server = PtyServer(line)
    yield server.path
    server.close()


def remembered(line: VirtualBus[Any]) -> list[list[int]]:
    """What the servos hold."""
    return [[servo[name] for name in REMEMBERED] for servo in line.servos.values()]


def without_calibration(path: Path) -> Path:
    """The file of an arm that is not calibrated yet."""
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(row for row in lines if "calibration:" not in row))
    return path


@pytest.mark.real_time
def test_a_file_from_the_bus_is_good_and_describes_the_bus(
    tmp_path: Path, line: VirtualBus[Any], port: str
) -> None:
    output = tmp_path / "robot.yaml"
    made = robot("new", "--port", port, "--baud", 1_000_000, "-o", output)
    assert made.exit_code == 0, made.output
    config = load_yaml(output, RunConfig).robot
    assert [(j.name, j.id) for j in config.joints] == [("joint1", 1), ("joint2", 2)]
    assert {j.model for j in config.joints} == {SERVOS[config.bus.protocol]}

    before = remembered(line)
    found = robot("check", without_calibration(output), "--json")
    assert found.exit_code == 0, found.output
    result = json.loads(found.stdout)
    assert result["bus_checked"]
    assert [joint["torque"] for joint in result["joints"]] == ["off", "off"]
    assert all(abs(joint["position_rad"]) < 0.01 for joint in result["joints"])
    assert remembered(line) == before


@pytest.mark.real_time
def test_a_joint_out_of_range_is_named_with_exit_code_7(
    tmp_path: Path, line: VirtualBus[Any], port: str
) -> None:
    output = tmp_path / "robot.yaml"
    assert robot("new", "--port", port, "--baud", 1_000_000, "-o", output).exit_code == 0
    text = without_calibration(output).read_text()
    output.write_text(text.replace("zero_tick: 2048", "zero_tick: 1024").replace("3.14", "0.5"))
    found = robot("check", output)
    assert found.exit_code == 7, found.output
    assert "joint1 stands at 1.57 rad" in found.stderr


@pytest.mark.real_time
def test_another_robot_on_the_port_is_refused(tmp_path: Path, port: str) -> None:
    output = tmp_path / "robot.yaml"
    assert robot("new", "--port", port, "--baud", 1_000_000, "-o", output).exit_code == 0
    without_calibration(output).write_text(output.read_text().replace("id: 2", "id: 3"))
    found = robot("check", output)
    assert found.exit_code == 6
    assert "joint2 (id 3): no answer" in found.stderr


def test_a_file_without_servos(tmp_path: Path) -> None:
    output = tmp_path / "robot.yaml"
    port = tmp_path / "unplugged"
    assert robot("new", *NAMED, "--port", port, "-o", output).exit_code == 0
    found = robot("check", output)
    assert found.exit_code == 0
    assert f"{port}: not checked: {port} is not there" in found.stdout
    assert robot("check", output, "--bus").exit_code == 6
    assert robot("check", output, "--file-only").exit_code == 0


def test_an_existing_file_is_never_replaced(tmp_path: Path) -> None:
    output = tmp_path / "robot.yaml"
    output.write_text("mine")
    found = robot("new", *NAMED, "-o", output)
    assert (found.exit_code, output.read_text()) == (2, "mine")
    assert "exists" in found.stderr


@pytest.mark.parametrize(
    ("joints", "said"),
    [
        (["base"], "NAME=MODEL:ID"),
        (["base=sts3215"], "NAME=MODEL:ID"),
        (["base=sts9999:1"], "unknown model"),
        (["base=sts3215:1", "tip=xl330-m288:2"], "can't share a bus"),
        (["base=sts3215:1", "base=sts3215:2"], "is also the name of joints.0"),
        (["base=sts3215:1", "tip=sts3215:1"], "is also the id of joints.0"),
        (["base=sts3215:999"], "less than or equal"),
    ],
)
def test_a_bad_joint_is_one_line_and_writes_nothing(
    tmp_path: Path, joints: list[str], said: str
) -> None:
    words = [word for joint in joints for word in ("--joint", joint)]
    found = robot("new", *words, "-o", tmp_path / "robot.yaml")
    assert found.exit_code == 2, found.output
    assert said in found.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_bad_file_is_refused_with_its_line(tmp_path: Path) -> None:
    output = tmp_path / "robot.yaml"
    assert robot("new", *NAMED, "-o", output).exit_code == 0
    output.write_text(output.read_text().replace("rate_hz: 50", "rate_hz: -1"))
    found = robot("check", output)
    assert found.exit_code == 2
    assert "robot.yaml:30: control.rate_hz" in found.stderr
