"""`v2a motors calibrate`: a hand moves the joints; what is written, kept, checked later."""

from __future__ import annotations

import math
import signal
import subprocess
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.family import load_family
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors.calibrate import undone_on_failure
from hw_drivers.motors.joint_range import Range
from hw_drivers.motors.measured_limits import measured, unmeasured
from hw_drivers.robot.command_lines import calibrate_line
from hw_drivers.robot.config import JointConfig
from hw_drivers.robot.joint_calibration import Calibration, ServoCalibration, check_calibration
from hw_drivers.robot.robot import Robot, RobotConfig
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.loopback import LoopbackPort
from tests.hw_drivers.motors.conftest import XL330, Serve, motors, process, settings_of
from v2a.clock import FakeClock, MonotonicClock
from v2a.config import load_yaml
from v2a.errors import BusError
from v2a.own_command import own_command

pytestmark = pytest.mark.real_time

JOINTS = ("yaw", "elbow")
STEP_RAD = 0.3


def robot_yaml(tmp_path: Path, port: str, protocol: str, model: str, more: str = "") -> Path:
    path = tmp_path / "robot.yaml"
    limits = "lower_rad: -0.5, upper_rad: 0.5, velocity_limit_rad_s: 1.0"
    joints = "".join(
        f"  - {{name: {name}, id: {k}, model: {model}, {limits}}}\n"
        for k, name in enumerate(JOINTS, start=1)
    )
    bus = f"{{protocol: {protocol}, port: {port}, baud: 1000000, budget_s: 0.5}}"
    path.write_text(
        f"name: arm\n{more or 'calibration: arm.calibration.yaml'}\nbus: {bus}\njoints:\n{joints}"
    )
    whole = tmp_path / "whole.yaml"
    whole.write_text(f"robot:\n{textwrap.indent(path.read_text(), '  ')}\nother: things\n")
    return whole


class Hand:
    """Moves the joints of a `calibrate` that is under way, and follows its numbers."""

    def __init__(self, running: subprocess.Popen[str], line: VirtualBus[Any]) -> None:
        self._running = running
        self._line = line

    def wait_for(self, *words: str) -> None:
        """Until a line on stderr begins with these words, which the test's time limit bounds."""
        assert self._running.stderr
        seen = []
        for line in self._running.stderr:
            seen.append(line)
            if [*words] == line.split()[: len(words)]:
                return
        raise AssertionError(f"{words} never came: {seen}")

    def move(self, servo_id: int, to_rad: float) -> None:
        """Move it there from where it is, seen at each step: by a person it takes seconds."""
        servo = self._line.servos[servo_id]
        start_rad = servo.setpoint_rad
        steps = math.ceil(abs(to_rad - start_rad) / STEP_RAD)
        for k in range(1, steps + 1):
            with self._line.lock:
                servo.setpoint_rad = start_rad + (to_rad - start_rad) * k / steps
                servo.set_present_rad(servo.setpoint_rad)
                tick = servo["present_position"]
            self._wait_for_tick(servo_id, tick % 4096)

    def _wait_for_tick(self, servo_id: int, tick: int) -> None:
        assert self._running.stderr
        for line in self._running.stderr:
            words = line.split()
            if words[0] == JOINTS[servo_id - 1] and int(words[2]) % 4096 == tick:
                return
        raise AssertionError(f"tick {tick} of {servo_id} never came")

    def press_enter(self) -> tuple[str, str]:
        """The end: what is on stdout and stderr then."""
        return self._running.communicate("\n", timeout=60)


@contextmanager
def calibrating(path: Path, line: VirtualBus[Any]) -> Iterator[tuple[Hand, subprocess.Popen[str]]]:
    with process("calibrate", path, "--yes") as running:
        hand = Hand(running, line)
        hand.wait_for("yaw")
        yield hand, running


def feetech_line(*, torque: bool = False) -> VirtualFeetechBus:
    line = VirtualFeetechBus([VirtualFeetech(FEETECHS["sts3215"], k) for k in (1, 2)])
    for servo in line.servos.values():
        servo.set_present_rad(0.0)
        servo.write(40, bytes((torque,)))
    return line


def test_a_calibrated_arm_connects_and_another_one_does_not(serve: Serve, tmp_path: Path) -> None:
    line = feetech_line(torque=True)
    path = robot_yaml(tmp_path, serve(line).path, "feetech", "sts3215")
    with calibrating(path, line) as (hand, running):
        assert not line.servos[1].torque_on
        for servo_id, (low_rad, high_rad) in {1: (-1.5, 0.9), 2: (-0.6, 4.2)}.items():
            hand.move(servo_id, low_rad)
            hand.move(servo_id, high_rad)
        out, err = hand.press_enter()
        assert running.returncode == 0, err
    # The seam was in the range of the elbow; now the range is in the middle of the turn.
    file = tmp_path / "arm.calibration.yaml"
    stored = load_yaml(file, Calibration)
    elbow = stored.joints["elbow"]
    assert elbow.max_position_limit - elbow.min_position_limit == pytest.approx(
        4.8 / math.tau * 4096, abs=2
    )
    assert elbow.min_position_limit + elbow.max_position_limit == pytest.approx(4095, abs=1)
    assert line.servos[2]["max_position_limit"] == elbow.max_position_limit
    assert line.servos[2]["homing_offset"] == elbow.homing_offset != 0
    assert line.servos[2]["lock"] == 1
    assert "written and read back" in out
    assert "elbow: zero_tick: " in out

    config = as_advised(path, out)
    robot = Robot(config, FakeClock(), LoopbackPort(line))
    robot.connect()  # no fault: the file and the servos agree
    line.servos[2].set_present_rad(0.2)
    assert robot.read_state().position_rad[1] == pytest.approx(0.2, abs=2e-3)  # zero did not move
    with pytest.raises(BusError) as caught:
        Robot(config, FakeClock(), LoopbackPort(feetech_line())).connect()
    message = str(caught.value)
    assert f"elbow (id 2): homing_offset is 0, calibrated with {elbow.homing_offset}" in message
    assert f"{file} is the calibration of 'arm': of another arm, or from before a change" in message


def as_advised(path: Path, out: str) -> RobotConfig:
    """The robot with the zero that calibrate prints, and a limit that the range has."""
    data = yaml.safe_load(path.read_text())["robot"]
    data["calibration"] = str(path.parent / data["calibration"])
    for joint in data["joints"]:
        (line,) = [line for line in out.splitlines() if f" {joint['name']}: zero_tick" in line]
        joint |= yaml.safe_load(f"{{{line.partition(':')[2]}}}")
    return RobotConfig.model_validate(data)


def test_ctrl_c_leaves_servos_and_file_as_they_were(serve: Serve, tmp_path: Path) -> None:
    line = feetech_line()
    before = settings_of(line)
    path = robot_yaml(tmp_path, serve(line).path, "feetech", "sts3215")
    with calibrating(path, line) as (hand, running):
        hand.move(1, 0.6)
        running.send_signal(signal.SIGINT)
        assert running.wait(30) == 130
    assert settings_of(line) == before
    assert not (tmp_path / "arm.calibration.yaml").exists()


def test_every_joint_that_cannot_be_is_named_and_nothing_written(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    for servo in chain.servos.values():
        servo.set_present_rad(0.0)
    path = robot_yaml(tmp_path, serve(chain).path, "dynamixel2", "xl330-m288")
    before = settings_of(chain)
    with calibrating(path, chain) as (hand, running):
        hand.move(1, 7.0)
        _, err = hand.press_enter()
        assert running.returncode == 6
    assert "nothing was written:\n  yaw (id 1): its range is 4563 ticks, a turn has 4096" in err
    assert "\n  elbow (id 2): moved by 0 ticks only" in err
    assert settings_of(chain) == before


def test_a_dynamixels_seam_cannot_be_moved(
    serve: Serve, chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, serve(chain).path, "dynamixel2", "xl330-m288")
    for servo in chain.servos.values():
        servo.set_present_rad(0.0)
    with calibrating(path, chain) as (hand, running):
        hand.move(1, 3.6)
        hand.move(2, 1.0)
        _, err = hand.press_enter()
        assert running.returncode == 6
    assert "yaw (id 1): the encoder's seam lies in its range, 2048 ticks from one end" in err
    assert "unscrew the horn, turn the servo to about tick 2048" in err


def test_a_robot_that_names_no_file_is_told_what_to_write(tmp_path: Path) -> None:
    path = robot_yaml(tmp_path, "/dev/none", "feetech", "sts3215", more="# nothing")
    result = motors("calibrate", path)
    assert result.exit_code == 2
    assert "under robot: calibration: whole.calibration.yaml" in result.stderr


def test_a_servo_that_counts_turns_has_to_be_set_up_first(serve: Serve, tmp_path: Path) -> None:
    line = feetech_line()
    line.servos[2].write(55, b"\0")
    line.servos[2].write(18, b"\x1c")
    path = robot_yaml(tmp_path, serve(line).path, "feetech", "sts3215")
    result = motors("calibrate", path, "--yes")
    assert result.exit_code == 6
    assert (
        "elbow (id 2): phase 28, expected 12 (position within one turn, speed in steps per "
        f"second); run {own_command()} motors setup --port"
    ) in result.stderr


def test_a_servo_that_is_gone_does_not_keep_the_others_from_their_old_values(
    chain: VirtualDynamixelBus, capsys: pytest.CaptureFixture[str]
) -> None:
    bus = DynamixelBus(LoopbackPort(chain), MonotonicClock(), dict.fromkeys((1, 2, 3), XL330))
    before = settings_of(chain)
    wanted = {k: {"min_position_limit": 100 * k} for k in (1, 2, 3)}

    def lose_one() -> None:
        with undone_on_failure(bus, load_family("dynamixel2"), wanted):
            for k in (1, 2, 3):
                bus.write(k, "min_position_limit", 100 * k)
            del chain.servos[1]
            raise BusError("the plug of servo 1")

    with pytest.raises(BusError, match="the plug of servo 1"):
        lose_one()
    assert settings_of(chain) == {k: before[k] for k in (2, 3)}
    assert "warning: not restored (min_position_limit 0): servo 1" in capsys.readouterr().err


@pytest.mark.parametrize("end", [KeyboardInterrupt, BusError])
def test_what_ends_the_writing_undoes_it(
    chain: VirtualDynamixelBus, end: type[BaseException]
) -> None:
    bus = DynamixelBus(LoopbackPort(chain), MonotonicClock(), dict.fromkeys((1, 2, 3), XL330))
    before = settings_of(chain)
    wanted = {k: {"min_position_limit": 100 * k, "homing_offset": k} for k in (1, 2)}

    def write_half() -> None:
        with undone_on_failure(bus, load_family("dynamixel2"), wanted):
            bus.write(1, "min_position_limit", 100)
            assert settings_of(chain) != before
            raise end

    with pytest.raises(end):
        write_half()
    assert settings_of(chain) == before


def servo_of(**changed: int) -> dict[str, ServoCalibration]:
    servo = {
        "id": 1,
        "model_number": 777,
        "firmware_version": 3,
        "homing_offset": 5,
        "min_position_limit": 10,
        "max_position_limit": 20,
    }
    data = {"robot": "arm", "joints": {"yaw": servo | changed}}
    return Calibration.model_validate(data).joints


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("id", 2),
        ("model_number", 2825),
        ("firmware_version", 4),
        ("homing_offset", 6),
        ("min_position_limit", 11),
        ("max_position_limit", 21),
    ],
)
def test_each_difference_is_a_fault(key: str, value: int) -> None:
    (fault,) = check_calibration(servo_of(), servo_of(**{key: value}))
    assert f"{key} is {value}, calibrated with " in fault
    assert check_calibration(servo_of(), servo_of()) == []


def test_joints_of_other_names_are_faults() -> None:
    stored, found = servo_of(), {"roll": servo_of()["yaw"]}
    faults = check_calibration(stored, found)
    assert faults == [
        "roll: has no calibration, calibrated are yaw",
        "yaw: is calibrated but not a joint of this robot",
    ]


def test_limits_outside_of_the_measured_range_are_refused_at_connect(
    chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    servo = {"id": 1, "model_number": XL330.number, "firmware_version": 52, "homing_offset": 0}
    limits = {"min_position_limit": 1900, "max_position_limit": 3000}
    for name, raw in limits.items():
        item = XL330.items[name]
        assert chain.servos[1].write(item.address, item.pack(raw)) == 0
    file = tmp_path / "c.yaml"
    file.write_text(yaml.safe_dump({"robot": "arm", "joints": {"yaw": servo | limits}}))
    path = robot_yaml(tmp_path, "/dev/none", "dynamixel2", "xl330-m288", f"calibration: {file}")
    data = yaml.safe_load(path.read_text())["robot"]
    del data["joints"][1]
    config = RobotConfig.model_validate(data)
    with pytest.raises(BusError, match=r"lower_rad -0.5 is tick 1722, outside the calibrated"):
        Robot(config, FakeClock(), LoopbackPort(chain)).connect()


def test_a_calibration_that_is_gone_is_refused_at_connect(
    chain: VirtualDynamixelBus, tmp_path: Path
) -> None:
    path = robot_yaml(tmp_path, "/dev/none", "dynamixel2", "xl330-m288")
    data = yaml.safe_load(path.read_text())["robot"]
    data["calibration"] = str(tmp_path / "gone.yaml")
    with pytest.raises(
        BusError, match=r"(?m)gone\.yaml: no such file.*; run .*v2a motors calibrate$"
    ):
        Robot(RobotConfig.model_validate(data), FakeClock(), LoopbackPort(chain)).connect()


def test_the_advice_to_calibrate_names_the_robot_yaml_beside_the_file(tmp_path: Path) -> None:
    arm = tmp_path / "arm.yaml"
    assert calibrate_line(tmp_path / "arm.calibration.yaml").endswith("motors calibrate")
    arm.touch()
    assert calibrate_line(tmp_path / "arm.calibration.yaml").endswith(f"motors calibrate {arm}")


def joint(**changed: object) -> JointConfig:
    """A joint as `v2a robot new` writes it, but for the changes."""
    new = {"name": "yaw", "model": "sts3215", "id": 1, "velocity_limit_rad_s": 1.0}
    return JointConfig.model_validate({**new, "lower_rad": -3.14, "upper_rad": 3.14, **changed})


@pytest.mark.parametrize("direction", [1, -1])
def test_a_range_without_0_rad_gets_it_in_its_middle(direction: int) -> None:
    now = measured(joint(direction=direction), Range(1890, 1298, 2797, 2206))
    assert now.zero_tick == 2047
    assert (now.lower_rad, now.upper_rad) == pytest.approx((-1.15, 1.15), abs=2e-3)


def test_a_zero_that_the_file_has_limits_around_stays() -> None:
    own = joint(lower_rad=-0.5)
    assert measured(own, Range(1890, 1298, 2797, 2206)).zero_tick == 158


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({}, (True, True)),
        ({"direction": -1}, (True, True)),
        ({"lower_rad": -3.13}, (False, True)),
        ({"direction": -1, "lower_rad": -3.13}, (False, True)),
        ({"upper_rad": 3.13}, (True, False)),
    ],
)
def test_the_whole_turn_is_nobodys_limit(
    changed: dict[str, object], expected: tuple[bool, bool]
) -> None:
    assert unmeasured(joint(**changed)) == expected
