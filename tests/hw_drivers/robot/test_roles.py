"""Servos in a role of their own: a second servo on a joint, and a gripper with a current limit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from hw_drivers.robot.joint_calibration import Calibration, read_servos, save_calibration
from hw_drivers.robot.robot import Robot
from hw_drivers.robot.watch import CYCLES
from hw_drivers.virtual.bus import VirtualBus
from tests.hw_drivers.robot.test_checks import refusal, robot_of, robot_of_bus
from v2a.errors import BusError


def shadowed(**joint: Any) -> tuple[Robot, VirtualBus[Any]]:
    """Joint j2 has servo 2, and the mirrored servo 3 as its shadow, as on a ViperX."""
    robot, bus = robot_of("dynamixel2", shadow_id=3, **joint)
    bus.servos[3]._set("secondary_id", 2)
    bus.servos[3]._set("drive_mode", 1)
    return robot, bus


def read_all_kinds(robot: Robot) -> None:
    for _ in range(CYCLES):
        robot.read_state()


def test_a_shadow_does_what_its_joint_does_and_is_switched_off_with_it() -> None:
    robot, bus = shadowed()
    robot.connect()
    robot.enable_torque()
    shadow = bus.servos[3]
    assert shadow.torque_on
    assert shadow["bus_watchdog"] == bus.servos[2]["bus_watchdog"] > 0
    assert shadow["profile_velocity"] == bus.servos[2]["profile_velocity"]
    robot.write_goal(np.array([0.0, 0.5]))
    for _ in range(60):
        bus.step(0.02)
        state = robot.read_state()
    assert state.position_rad == pytest.approx([0.0, 0.5], abs=1e-3)
    assert shadow["present_position"] == bus.servos[2]["present_position"]
    assert shadow.setpoint_rad == pytest.approx(-0.5, abs=1e-3)  # it is mounted the other way round
    robot.disable_torque()
    assert not any(servo.torque_on for servo in bus.servos.values())
    assert robot.torque == {"j1": "off", "j2": "off"}


def test_the_worse_of_the_two_servos_speaks_for_the_joint() -> None:
    robot, bus = shadowed()
    robot.connect()
    bus.servos[3].sense("present_temperature", 61)
    bus.servos[2].sense("present_current", 40)
    bus.servos[3].sense("present_current", -90)
    robot.read_state()
    health = robot.health()
    assert health
    assert health.temperature_c
    assert health.current_a
    assert health.voltage_v
    assert health.temperature_c.value.tolist() == [25.0, 61.0]
    assert health.current_a.value.tolist() == pytest.approx([0.0, -90 * 0.00269])
    assert health.voltage_v.value.shape == (2,)
    assert len(health.alarms) == 2


def test_an_alarm_of_a_shadow_is_the_joints() -> None:
    robot, bus = shadowed()
    robot.connect()
    robot.enable_torque()
    bus.servos[3].overload()
    with pytest.raises(BusError, match=r"j2 \(id 2\): its shadow \(id 3\): overload"):
        robot.read_state()
    health = robot.health()
    assert health
    assert health.alarms == ("", "its shadow (id 3): overload")


def test_a_shadow_that_restarts_is_a_fault_and_its_torque_counts() -> None:
    robot, bus = shadowed()
    robot.connect()
    robot.enable_torque()
    bus.servos[3].reboot()
    with pytest.raises(BusError, match=r"j2 its shadow \(id 3\): lost its"):
        read_all_kinds(robot)
    robot.enable_torque()
    robot.bus.write(2, "torque_enable", 0)  # its shadow hears this, too
    bus.servos[3]._set("torque_enable", 1)
    with pytest.raises(BusError, match="lost its torque"):
        read_all_kinds(robot)
    assert robot.torque["j2"] == "on"


def test_a_shadow_that_is_silent_makes_its_joint_silent() -> None:
    robot, bus = shadowed()
    robot.connect()
    del bus.servos[3]
    assert robot.read_state().valid.tolist() == [True, False]
    with pytest.raises(BusError, match=r"torque may still be on: j2's shadow: servo 3: no answer"):
        robot.disable_torque()
    assert robot.torque == {"j1": "off", "j2": "unknown"}


def test_a_shadow_that_obeys_nobody_or_another_joint_is_refused() -> None:
    robot, bus = shadowed()
    for other in (255, 1):
        bus.servos[3]._set("secondary_id", other)
        assert (
            f"j2's shadow (id 3): secondary_id {other}, expected 2 (the id of its joint's servo)"
            in refusal(robot)
        )


def test_a_shadow_is_part_of_the_calibration(tmp_path: Path) -> None:
    file = tmp_path / "arm.yaml"
    robot, bus = shadowed(calibration=file)
    servos = read_servos(robot_of_bus(robot, bus).bus, robot.config)
    assert [*servos] == ["j1", "j2", "j2's shadow"]
    save_calibration(file, Calibration(robot="arm", joints=servos))
    robot.connect()
    bus.servos[3]._set("drive_mode", 0)
    assert "j2's shadow (id 3): drive_mode (direction) is 0, calibrated with 1" in refusal(robot)


@pytest.mark.parametrize(
    ("protocol", "joint", "fault"),
    [
        (
            "feetech",
            {"shadow_id": 3},
            "a sts3215 has no register secondary_id; leave shadow_id out",
        ),
        ("dynamixel2", {"shadow_id": 1}, "joints.1.shadow_id: 1 is also the id of joints.0"),
        ("dynamixel2", {"shadow_id": 2}, "2 is also the id of joints"),
        ("dynamixel2", {"shadow_id": 253}, "less than or equal to 252"),
        ("feetech", {"current_limit_a": 0.3}, "a sts3215 has no register goal_current"),
        (
            "dynamixel2",
            {"current_limit_a": 0.3, "model": "xl430-w250"},
            "a xl430-w250 has no register goal_current; leave current_limit_a out",
        ),
        ("dynamixel2", {"current_limit_a": 9.0}, "a xm430-w350 takes 0.00269 to 3.20917 A"),
        ("dynamixel2", {"current_limit_a": 0.001}, "a xm430-w350 takes 0.00269 to 3.20917 A"),
    ],
)
def test_a_role_that_the_model_can_not_have(
    protocol: str, joint: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        robot_of(protocol, **joint)
    assert fault in str(caught.value)


def test_a_gripper_with_a_current_limit_gets_it_before_torque() -> None:
    robot, bus = robot_of("dynamixel2", current_limit_a=0.3)
    assert "j2 (id 2): operating_mode 3, expected 5 (current-based position mode" in refusal(robot)
    bus.servos[2]._set("operating_mode", 5)
    bus.servos[2]._set("goal_current", 0)  # of an earlier program: it would not move
    robot.connect()
    robot.enable_torque()
    assert bus.servos[2]["goal_current"] == 111  # 0.3 A in units of 2.69 mA, rounded down
    robot.write_goal(np.array([0.0, 0.5]))
    for _ in range(60):
        bus.step(0.02)
        state = robot.read_state()
    assert state.position_rad == pytest.approx([0.0, 0.5], abs=1e-3)


def test_a_current_limit_above_the_servos_own_is_refused() -> None:
    robot, bus = robot_of("dynamixel2", current_limit_a=0.3)
    bus.servos[2]._set("operating_mode", 5)
    bus.servos[2]._set("current_limit", 100)
    assert (
        "j2 (id 2): current_limit_a 0.3 is above the servo's own limit of 0.269 A (current_limit "
        "100); lower current_limit_a, or raise that register" in refusal(robot)
    )
