"""The virtual servo: its rules for registers, its motion, its watchdog, its faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS, RAD_PER_TICK, WATCHDOG_TRIPPED
from hw_drivers.dynamixel.packet import ALERT_BIT
from hw_drivers.virtual.servo import (
    ACCESS_ERROR,
    LENGTH_ERROR,
    LIMIT_ERROR,
    RANGE_ERROR,
    RESULT_FAIL,
    VirtualServo,
)

XL430 = MODELS["xl430-w250"]


@pytest.fixture
def servo() -> VirtualServo:
    return VirtualServo(XL430, 1, velocity_limit_rad_s=1.0)


def write(servo: VirtualServo, name: str, raw: int) -> int:
    item = servo.model.items[name]
    return servo.write(item.address, item.pack(raw))


def goal_rad(servo: VirtualServo, position_rad: float) -> None:
    assert write(servo, "goal_position", 2048 + round(position_rad / RAD_PER_TICK)) == 0


@pytest.mark.parametrize(
    ("address", "data", "error"),
    [
        (116, b"\x00\x04\x00\x00", 0),
        (116, b"\x00\x08", LENGTH_ERROR),  # half a register
        (117, b"\x00\x00\x00", ACCESS_ERROR),  # not where a register begins
        (132, b"\x00\x08\x00\x00", ACCESS_ERROR),  # read only
        (400, b"\x00", ACCESS_ERROR),  # no such register
        (64, b"\x02", RANGE_ERROR),
        (98, b"\xff", RANGE_ERROR),  # only the servo itself says -1
        (116, b"\x00\x10\x00\x00", LIMIT_ERROR),  # above max_position_limit
        (116, b"\xff\xff\xff\xff", LIMIT_ERROR),  # -1, below min_position_limit
        (116, b"\x00\x08\x00\x00" + b"\x00", ACCESS_ERROR),  # runs into a read-only one
        (64, b"\x01\x01", 0),  # torque_enable and led at once
    ],
)
def test_writes_are_judged_as_the_manual_says(
    servo: VirtualServo, address: int, data: bytes, error: int
) -> None:
    assert servo.write(address, data) == error
    if not error:
        assert servo.read(address, len(data)) == (0, data)


def test_a_refused_write_changes_nothing(servo: VirtualServo) -> None:
    before = servo.read(0, 147)
    assert servo.write(64, b"\x01\x05") == RANGE_ERROR  # torque on would do, led = 5 does not
    assert servo.read(0, 147) == before


def test_eeprom_is_locked_while_torque_is_on(servo: VirtualServo) -> None:
    assert write(servo, "torque_enable", 1) == 0
    assert write(servo, "return_delay_time", 0) == ACCESS_ERROR
    assert write(servo, "torque_enable", 0) == 0
    assert write(servo, "return_delay_time", 0) == 0


def test_reading_past_the_table_is_an_access_error(servo: VirtualServo) -> None:
    assert servo.read(146, 1) == (0, b"\x19")
    assert servo.read(146, 2) == (ACCESS_ERROR, b"")


def test_the_setpoint_moves_to_the_goal_at_the_velocity_limit(servo: VirtualServo) -> None:
    write(servo, "torque_enable", 1)
    goal_rad(servo, 0.5)
    servo.step(0.1)
    assert servo.setpoint_rad == pytest.approx(0.1)
    servo.step(10.0)
    assert servo.setpoint_rad == pytest.approx(0.5, abs=RAD_PER_TICK / 2)


def test_the_profile_velocity_slows_it_down(servo: VirtualServo) -> None:
    write(servo, "torque_enable", 1)
    write(servo, "profile_velocity", 10)
    goal_rad(servo, 0.5)
    servo.step(0.1)
    assert servo.setpoint_rad == pytest.approx(10 * 0.02398 * 0.1, rel=1e-3)


def test_without_torque_the_setpoint_follows_the_hand_that_moves_the_arm(
    servo: VirtualServo,
) -> None:
    goal_rad(servo, 0.5)
    servo.set_present_rad(-0.25)
    servo.step(0.1)
    assert servo.setpoint_rad == -0.25


def test_a_plant_owns_the_present_position(servo: VirtualServo) -> None:
    servo.set_present_rad(0.2)
    write(servo, "torque_enable", 1)
    goal_rad(servo, 0.5)
    servo.step(1.0)
    assert servo["present_position"] == 2048 + round(0.2 / RAD_PER_TICK)


@given(st.floats(-3.14, 3.14))
def test_the_present_position_is_read_in_ticks(position_rad: float) -> None:
    servo = VirtualServo(XL430, 1)
    servo.set_present_rad(position_rad)
    read_rad = (servo["present_position"] - 2048) * RAD_PER_TICK
    assert read_rad == pytest.approx(position_rad, abs=RAD_PER_TICK / 2 + 1e-12)


def test_the_watchdog_stops_a_servo_that_nobody_talks_to(servo: VirtualServo) -> None:
    write(servo, "torque_enable", 1)
    write(servo, "bus_watchdog", 5)  # 100 ms
    goal_rad(servo, 1.0)
    for _ in range(20):
        servo.hear_instruction()
        servo.step(0.01)
    assert servo.setpoint_rad == pytest.approx(0.2)
    for _ in range(20):
        servo.step(0.01)
    assert servo["bus_watchdog"] == WATCHDOG_TRIPPED
    assert servo.setpoint_rad == pytest.approx(0.3, abs=0.011)
    assert write(servo, "goal_position", 2048) == RANGE_ERROR
    assert write(servo, "bus_watchdog", 0) == 0
    assert write(servo, "goal_position", 2048) == 0


def test_the_watchdog_sleeps_while_torque_is_off(servo: VirtualServo) -> None:
    write(servo, "bus_watchdog", 5)
    servo.step(10.0)
    assert servo["bus_watchdog"] == 5


def test_a_hardware_error_drops_torque_until_a_reboot(servo: VirtualServo) -> None:
    write(servo, "torque_enable", 1)
    servo.latch_hardware_error(1 << 5)
    assert not servo.torque_on
    assert servo.alert == ALERT_BIT
    assert write(servo, "torque_enable", 1) == RESULT_FAIL
    servo.set_present_rad(0.3)
    servo.reboot()
    assert servo.alert == 0
    assert servo["goal_position"] == servo["present_position"] == 2048 + round(0.3 / RAD_PER_TICK)
    assert write(servo, "torque_enable", 1) == 0
