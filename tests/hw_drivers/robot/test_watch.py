"""A servo that lost its torque or its watchdog is noticed within ten cycles, and named."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from hw_drivers.robot.robot import Robot
from hw_drivers.robot.watch import CYCLES
from tests.hw_drivers.robot.test_checks import robot_of
from v2a.errors import BusError

PROTOCOLS: dict[str, dict[str, Any]] = {
    "dynamixel2": {},
    "feetech": {},
    "scs": {"model": "scs0009", "zero_tick": 512},  # these are read one by one
}


def cycles_until_a_fault(robot: Robot) -> tuple[int, str]:
    for cycle in range(1, CYCLES + 1):
        try:
            robot.read_state()
        except BusError as error:
            return cycle, str(error)
    raise AssertionError("no fault")


@pytest.mark.parametrize("kind", PROTOCOLS)
@pytest.mark.parametrize("before", range(CYCLES))
def test_a_servo_that_restarts_is_noticed_whatever_cycle_it_is(kind: str, before: int) -> None:
    robot, bus = robot_of("feetech" if kind == "scs" else kind, **PROTOCOLS[kind])
    robot.connect()
    robot.enable_torque()
    for _ in range(before):
        robot.read_state()
    bus.servos[2].reboot()
    _, fault = cycles_until_a_fault(robot)
    assert fault.startswith("j2 lost its ")
    assert "it restarted" in fault
    for _ in range(CYCLES):  # and it stays a fault until torque is enabled again
        with pytest.raises(BusError, match="j2 lost its"):
            robot.read_state()
    health = robot.health()
    assert health
    assert health.alarms[0] == ""
    assert health.alarms[1].startswith("lost its ")
    assert robot.torque == {"j1": "on", "j2": "off"}
    robot.enable_torque()
    for _ in range(CYCLES):
        assert robot.read_state().valid.all()
    assert robot.torque == {"j1": "on", "j2": "on"}


def test_a_speed_limit_that_another_program_takes_away_is_noticed() -> None:
    robot, bus = robot_of("dynamixel2")
    robot.connect()
    robot.enable_torque()
    limit = bus.servos[2]["profile_velocity"]
    bus.servos[2]._set("profile_velocity", 0)  # no limit
    _, fault = cycles_until_a_fault(robot)
    assert fault == (
        f"j2 lost its limit: profile_velocity is 0 instead of {limit}; it restarted, or another "
        "program wrote to it"
    )


def test_a_servo_whose_watchdog_was_switched_off_is_noticed() -> None:
    robot, bus = robot_of("dynamixel2")
    robot.connect()
    robot.enable_torque()
    bus.servos[1]._set("bus_watchdog", 0)
    assert cycles_until_a_fault(robot)[1].startswith("j1 lost its watchdog: it restarted")


def test_a_servo_that_was_stopped_by_its_watchdog_is_noticed_without_a_silence() -> None:
    """E.g. its wire alone was loose for a while: the others heard every request."""
    robot, bus = robot_of("dynamixel2")
    robot.connect()
    robot.enable_torque()
    bus.servos[1]._set("bus_watchdog", 255)
    assert cycles_until_a_fault(robot)[1].startswith("j1 stopped itself: its watchdog")


@pytest.mark.parametrize("protocol", ["dynamixel2", "feetech"])
def test_torque_is_what_the_servos_say(protocol: str) -> None:
    robot, bus = robot_of(protocol)
    assert robot.torque == {"j1": "unknown", "j2": "unknown"}
    robot.connect()
    bus.servos[1]._set("torque_enable", 1)  # left on by another program
    for _ in range(CYCLES):
        robot.read_state()  # disarmed, so this is no fault
    assert robot.torque == {"j1": "on", "j2": "off"}
    gone = bus.servos.pop(2)
    for _ in range(CYCLES):
        robot.read_state()
    assert robot.torque == {"j1": "on", "j2": "unknown"}
    bus.servos[2] = gone
    robot.enable_torque()
    robot.disable_torque()
    assert robot.torque == {"j1": "off", "j2": "off"}


def test_the_guards_leave_the_ordinary_cycles_as_they_are() -> None:
    """Six of ten cycles ask for the same bytes as without guards, and none asks for far more."""
    robot, bus = robot_of("dynamixel2", ids=(1, 2, 3, 4, 5, 6, 7))
    robot.connect()
    port = robot._port
    assert port
    sent: list[int] = []
    write, respond = port.write, bus.respond

    def counted(data: bytes) -> bytes:
        answer = respond(data)
        sent[-1] += len(data) + len(answer)
        return answer

    bus.respond = counted  # type: ignore[method-assign]
    for _ in range(CYCLES):
        sent.append(0)
        robot.read_state()
    port.write = write  # type: ignore[method-assign]
    ordinary = min(sent)
    assert sent.count(ordinary) == CYCLES - 4  # health, torque, limits, watchdog
    assert max(sent) <= 2 * ordinary
    np.testing.assert_array_equal(sorted(sent)[:6], ordinary)
