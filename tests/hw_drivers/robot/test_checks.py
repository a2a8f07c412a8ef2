"""Connect refuses every register that would make a goal mean something else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hw_drivers.family import load_family
from hw_drivers.robot.joint_calibration import Calibration, read_servos, save_calibration
from hw_drivers.robot.robot import Robot, RobotConfig
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.loopback import LoopbackPort
from v2a.clock import FakeClock
from v2a.errors import BusError
from v2a.own_command import own_command

MODELS = {"dynamixel2": "xm430-w350", "feetech": "sts3215"}


def robot_of(
    protocol: str, ids: tuple[int, ...] = (1, 2), calibration: Path | None = None, **joint: Any
) -> tuple[Robot, VirtualBus[Any]]:
    """A robot of the joints j1, j2 ..; `joint` are more keys of the last of them."""
    model = joint.get("model", MODELS[protocol])
    joints: list[dict[str, Any]] = [
        {
            "name": f"j{i}",
            "id": i,
            "model": model,
            "lower_rad": -1.0,
            "upper_rad": 1.0,
            "velocity_limit_rad_s": 1.0,
        }
        for i in ids
    ]
    joints[-1] |= joint
    data = {
        "name": "arm",
        "calibration": calibration,
        "bus": {"protocol": protocol, "port": "/dev/none", "baud": 1_000_000},
        "joints": joints,
    }
    config = RobotConfig.model_validate(data)
    family = load_family(protocol)
    servos = [family.virtual_servo(servo.model, servo.id) for servo in config.servos]
    bus = family.virtual_bus(servos)
    return Robot(config, FakeClock(), LoopbackPort(bus)), bus


def refusal(robot: Robot) -> str:
    with pytest.raises(BusError) as caught:
        robot.connect()
    return str(caught.value)


@pytest.mark.parametrize(
    ("protocol", "register", "raw", "expected"),
    [
        ("dynamixel2", "operating_mode", 4, "expected 3 (position mode; a joint in"),
        ("dynamixel2", "operating_mode", 5, "expected 3 (position mode; a joint in"),
        ("dynamixel2", "drive_mode", 1 << 2, "expected 0 (speed as a velocity"),
        ("dynamixel2", "drive_mode", 0b1001, "expected 1 (speed as a velocity"),
        ("dynamixel2", "secondary_id", 1, "expected 255 (obeys no id but its own)"),
        ("dynamixel2", "secondary_id", 77, "expected 255 (obeys no id but its own)"),
        ("dynamixel2", "velocity_limit", 0, "expected 128 (not 0: it may move)"),
        ("dynamixel2", "pwm_limit", 0, "expected 885 (not 0: it may push)"),
        ("dynamixel2", "startup_configuration", 1, "expected 0 (torque stays off after a"),
        ("dynamixel2", "status_return_level", 1, "expected 2 (answer every request)"),
        ("feetech", "operating_mode", 1, "expected 0 (position mode)"),
        ("feetech", "phase", 12 | 16, "expected 12 (position within one turn, speed in"),
        ("feetech", "phase", 8, "expected 12 (position within one turn, speed in"),
        ("feetech", "angular_resolution", 3, "expected 1 (one tick for each step"),
        ("feetech", "max_torque_limit", 0, "expected 1000 (not 0: it may push)"),
        ("feetech", "status_return_level", 0, "expected 1 (answer every request)"),
    ],
)
def test_a_register_that_changes_what_a_goal_does_is_refused(
    protocol: str, register: str, raw: int, expected: str
) -> None:
    robot, bus = robot_of(protocol)
    bus.servos[2]._set(register, raw)
    fault = f"j2 (id 2): {register} {raw}, {expected}"
    assert fault in refusal(robot)
    assert f"run {own_command()} motors setup --port /dev/none" in refusal(robot)
    assert not any(servo.torque_on for servo in bus.servos.values())


@pytest.mark.parametrize(
    ("protocol", "register", "raw"),
    [
        ("dynamixel2", "secondary_id", 253),
        ("dynamixel2", "velocity_limit", 1),
        ("dynamixel2", "drive_mode", 1),
        ("dynamixel2", "return_delay_time", 250),  # slow, not wrong
        ("feetech", "phase", 12 | 0x81),
    ],
)
def test_a_register_that_is_right_in_another_way_is_not(
    protocol: str, register: str, raw: int
) -> None:
    robot, bus = robot_of(protocol)
    bus.servos[2]._set(register, raw)
    robot.connect()
    assert robot.read_state().valid.all()
    assert bus.servos[2][register] == raw  # and it stays so


def test_a_servo_that_answers_no_read_is_told_to_be_set_up() -> None:
    robot, bus = robot_of("dynamixel2")
    bus.servos[2]._set("status_return_level", 0)
    assert "j2 (id 2): answers a ping, but: servo 2: no answer to read" in refusal(robot)
    assert f"run {own_command()} motors setup --port /dev/none" in refusal(robot)


def test_a_firmware_that_lacks_registers_is_named() -> None:
    robot, bus = robot_of("dynamixel2")
    bus.servos[2]._set("firmware_version", 37)
    assert "j2 (id 2): its firmware 37 has no drive_mode, bus_watchdog; update it" in refusal(robot)


def test_a_stranger_on_the_bus_that_obeys_a_joint_is_refused() -> None:
    """A second-hand servo that robot.yaml does not name would move with the joint."""
    robot, bus = robot_of("dynamixel2")
    family = load_family("dynamixel2")
    bus.servos[9] = family.virtual_servo(family.models["xl430-w250"], 9)
    robot.connect()
    bus.servos[9]._set("secondary_id", 2)
    assert (
        "servo 9 is no joint of this robot, but obeys the id of j2 (secondary_id 2); if it drives "
        "that joint, too, name it there as shadow_id: 9" in refusal(robot)
    )


@pytest.mark.parametrize(
    ("protocol", "register", "now", "flipped"),
    [("dynamixel2", "drive_mode", 0, 1), ("feetech", "phase", 12, 12 | 0x81)],
)
@pytest.mark.parametrize("back", [False, True])
def test_a_direction_that_was_turned_round_after_the_calibration_is_refused(
    tmp_path: Path, protocol: str, register: str, now: int, flipped: int, back: bool
) -> None:
    """The same ticks are the mirrored angles then."""
    if back:
        now, flipped = flipped, now
    file = tmp_path / "arm.yaml"
    robot, bus = robot_of(protocol, calibration=file)
    bus.servos[2]._set(register, now)
    servos = read_servos(robot_of_bus(robot, bus).bus, robot.config)
    save_calibration(file, Calibration(robot="arm", joints=servos))
    robot.connect()
    bus.servos[2]._set(register, flipped)
    assert f"j2 (id 2): {register} (direction) is " in refusal(robot)


def test_a_calibration_from_before_directions_were_kept_is_of_the_factorys_direction(
    tmp_path: Path,
) -> None:
    file = tmp_path / "arm.yaml"
    robot, bus = robot_of("dynamixel2", calibration=file)
    servos = read_servos(robot_of_bus(robot, bus).bus, robot.config)
    old = {name: servo.model_copy(update={"mirrors": {}}) for name, servo in servos.items()}
    save_calibration(file, Calibration(robot="arm", joints=old))
    robot.connect()
    bus.servos[1]._set("drive_mode", 1)
    assert "j1 (id 1): drive_mode (direction) is 1, calibrated with 0" in refusal(robot)


def robot_of_bus(robot: Robot, bus: VirtualBus[Any]) -> Robot:
    """The same robot without a calibration, connected."""
    config = robot.config.model_copy(update={"calibration": None})
    plain = Robot(config, FakeClock(), LoopbackPort(bus))
    plain.connect()
    return plain
