"""Torque off by the policy's process, after the control process has died."""

from __future__ import annotations

import pytest

from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.pty import PtyServer
from runtime.control.last_resort import has_watchdogs, last_resort_torque_off
from tests.hw_drivers.robot.test_checks import robot_of
from v2a.clock import FakeClock, MonotonicClock


@pytest.mark.parametrize("protocol", ["dynamixel2", "feetech"])
def test_every_servo_that_can_be_reached_lets_go(protocol: str) -> None:
    robot, bus = robot_of(protocol)
    robot.connect()
    robot.enable_torque()
    gone = bus.servos.pop(2)
    found = last_resort_torque_off(robot.config, FakeClock(), robot._port)
    assert found == {"j1": "off", "j2": "unknown"}
    assert not bus.servos[1].torque_on
    assert gone.torque_on
    assert has_watchdogs(robot.config) == (protocol == "dynamixel2")


def test_a_servo_that_keeps_its_torque_is_not_called_off() -> None:
    robot, bus = robot_of("feetech")
    robot.connect()
    robot.enable_torque()
    bus.servos[2].write = lambda *_: None
    found = last_resort_torque_off(robot.config, FakeClock(), robot._port)
    assert found == {"j1": "off", "j2": "on"}


@pytest.mark.real_time
def test_a_port_that_is_gone_or_taken_leaves_everything_unknown() -> None:
    robot, bus = robot_of("feetech")
    unknown = {"j1": "unknown", "j2": "unknown"}
    assert last_resort_torque_off(robot.config, MonotonicClock()) == unknown
    server = PtyServer(bus)
    at = robot.config.bus.model_copy(update={"port": server.path})
    config = robot.config.model_copy(update={"bus": at})
    holder = Robot(config, MonotonicClock())
    holder.connect()
    holder.enable_torque()
    assert last_resort_torque_off(config, MonotonicClock()) == unknown
    assert all(servo.torque_on for servo in bus.servos.values())
    holder.close()  # as a process that dies does
    assert last_resort_torque_off(config, MonotonicClock()) == {"j1": "off", "j2": "off"}
    assert not any(servo.torque_on for servo in bus.servos.values())
    server.close()
