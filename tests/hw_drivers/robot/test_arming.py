"""Torque comes on where the joints are, in a few round trips, whatever is lost on the way."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from hw_drivers.dynamixel.models import RAD_PER_TICK
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.bus import VirtualBus
from tests.hw_drivers.robot.test_checks import robot_of
from v2a.errors import BusError

SIX = (1, 2, 3, 4, 5, 6)


def spy_on(robot: Robot, bus: VirtualBus[Any]) -> list[bytes]:
    """The requests that the servos answer from now on: each costs a round trip."""
    answered: list[bytes] = []
    respond = bus.respond

    def spy(data: bytes) -> bytes:
        if answer := respond(data):
            answered.append(data)
        return answer

    bus.respond = spy  # type: ignore[method-assign]
    return answered


@pytest.mark.parametrize("protocol", ["dynamixel2", "feetech"])
def test_six_servos_arm_in_four_round_trips(protocol: str) -> None:
    robot, bus = robot_of(protocol, ids=SIX)
    robot.connect()
    answered = spy_on(robot, bus)
    robot.enable_torque()
    assert len(answered) == 4
    assert all(servo.torque_on for servo in bus.servos.values())


@pytest.mark.parametrize("protocol", ["dynamixel2", "feetech"])
def test_the_goals_that_come_back_are_those_in_the_servos(protocol: str) -> None:
    robot, bus = robot_of(protocol, direction=-1, zero_tick=1800)
    for servo_id, servo in bus.servos.items():
        servo._set("goal_position", 3000)  # of an earlier program, far away
        servo.rest_at(2048 + 100 * servo_id)
    robot.connect()
    goals_rad = robot.enable_torque()
    assert [servo["goal_position"] for servo in bus.servos.values()] == [2148, 2248]
    np.testing.assert_allclose(goals_rad, np.array([100, -448]) * RAD_PER_TICK, atol=1e-9)
    robot.write_goal(goals_rad)
    assert [servo["goal_position"] for servo in bus.servos.values()] == [2148, 2248]


@pytest.mark.parametrize("protocol", ["dynamixel2", "feetech"])
@pytest.mark.parametrize("lost", range(9))
def test_a_request_that_is_lost_makes_no_joint_jump(protocol: str, lost: int) -> None:
    """Nobody answers a sync write. So each of them is lost once here, on its way to servo 2."""
    robot, bus = robot_of(protocol)
    for servo in bus.servos.values():
        servo._set("goal_position", 3000)
    robot.connect()
    sync_write, sent = robot.bus.sync_write, []

    def lossy(name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        sent.append(name)
        if len(sent) == lost + 1 and raw != [0, 0]:
            sync_write(name, ids[:1], raw[:1])
        else:
            sync_write(name, ids, raw)

    robot.bus.sync_write = lossy  # type: ignore[method-assign]
    goals_rad = robot.enable_torque()
    bus.step(0.05)
    for servo in bus.servos.values():
        assert servo.torque_on
        assert servo["goal_position"] == 2048
        assert servo.setpoint_rad == 0.0
    np.testing.assert_allclose(goals_rad, 0.0, atol=1e-9)
    if protocol == "dynamixel2":
        assert [servo["bus_watchdog"] for servo in bus.servos.values()] == [25, 25]
        assert [servo["profile_velocity"] for servo in bus.servos.values()] == [42, 42]


def test_a_servo_that_refuses_says_why_and_which_firmware_it_has() -> None:
    robot, bus = robot_of("dynamixel2")
    robot.connect()
    bus.servos[2].latch_hardware_error(1 << 5)
    refused = "servo 2: refused to write torque_enable = 1: result fail (firmware 46)"
    with pytest.raises(BusError, match=re.escape(refused)):
        robot.enable_torque()
    assert robot.torque == {"j1": "off", "j2": "off"}


def test_a_joint_a_little_outside_its_servos_range_is_held_at_the_end_of_it() -> None:
    """Resting on its end stop, a joint reads beyond it. The servo would refuse that goal."""
    robot, bus = robot_of("dynamixel2", lower_rad=-0.5, upper_rad=0.5)
    bus.servos[2]._set("max_position_limit", 2048 + 400)
    bus.servos[2].rest_at(2048 + 410)
    robot.connect()
    assert robot.enable_torque()[1] == pytest.approx(400 * RAD_PER_TICK)
    assert bus.servos[2]["goal_position"] == 2048 + 400


def test_an_exception_of_the_poll_leaves_torque_off() -> None:
    robot, bus = robot_of("dynamixel2")
    robot.connect()
    seen: list[bool] = []

    def poll() -> None:
        seen.append(bus.servos[1].torque_on)
        if seen[-1]:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        robot.enable_torque(poll)
    assert seen == [False, False, True]
    assert not any(servo.torque_on for servo in bus.servos.values())
