"""The virtual servo: its rules for registers, its motion, its watchdog, its faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS, RAD_PER_TICK, TABLES, WATCHDOG_TRIPPED
from hw_drivers.dynamixel.packet import ALERT_BIT
from hw_drivers.dynamixel.virtual_servo import (
    ACCESS_ERROR,
    LENGTH_ERROR,
    LIMIT_ERROR,
    RANGE_ERROR,
    RESULT_FAIL,
    VirtualDynamixel,
)

XL430 = MODELS["xl430-w250"]


@pytest.fixture
def servo() -> VirtualDynamixel:
    return VirtualDynamixel(XL430, 1, velocity_limit_rad_s=1.0)


def write(servo: VirtualDynamixel, name: str, raw: int) -> int:
    item = servo.model.items[name]
    return servo.write(item.address, item.pack(raw))


def goal_rad(servo: VirtualDynamixel, position_rad: float) -> None:
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
    servo: VirtualDynamixel, address: int, data: bytes, error: int
) -> None:
    assert servo.write(address, data) == error
    if not error:
        assert servo.read(address, len(data)) == (0, data)


def test_a_refused_write_changes_nothing(servo: VirtualDynamixel) -> None:
    before = servo.read(0, 147)
    assert servo.write(64, b"\x01\x05") == RANGE_ERROR  # torque on would do, led = 5 does not
    assert servo.read(0, 147) == before


def test_eeprom_is_locked_while_torque_is_on(servo: VirtualDynamixel) -> None:
    assert write(servo, "torque_enable", 1) == 0
    assert write(servo, "return_delay_time", 0) == ACCESS_ERROR
    assert write(servo, "torque_enable", 0) == 0
    assert write(servo, "return_delay_time", 0) == 0


def test_reading_past_the_table_is_an_access_error(servo: VirtualDynamixel) -> None:
    assert servo.read(146, 1) == (0, b"\x19")
    end = max(item.address + item.size for item in XL430.items.values())
    assert servo.read(end - 1, 1)[0] == 0
    assert servo.read(end - 1, 2) == (ACCESS_ERROR, b"")


def test_the_setpoint_moves_to_the_goal_at_the_velocity_limit(servo: VirtualDynamixel) -> None:
    write(servo, "torque_enable", 1)
    goal_rad(servo, 0.5)
    servo.step(0.1)
    assert servo.setpoint_rad == pytest.approx(0.1)
    servo.step(10.0)
    assert servo.setpoint_rad == pytest.approx(0.5, abs=RAD_PER_TICK / 2)


def test_the_profile_velocity_slows_it_down(servo: VirtualDynamixel) -> None:
    write(servo, "torque_enable", 1)
    write(servo, "profile_velocity", 10)
    goal_rad(servo, 0.5)
    servo.step(0.1)
    assert servo.setpoint_rad == pytest.approx(10 * 0.02398 * 0.1, rel=1e-3)


def test_without_torque_the_setpoint_follows_the_hand_that_moves_the_arm(
    servo: VirtualDynamixel,
) -> None:
    goal_rad(servo, 0.5)
    servo.set_present_rad(-0.25)
    servo.step(0.1)
    assert servo.setpoint_rad == -0.25


def test_a_plant_owns_the_present_position(servo: VirtualDynamixel) -> None:
    servo.set_present_rad(0.2)
    write(servo, "torque_enable", 1)
    goal_rad(servo, 0.5)
    servo.step(1.0)
    assert servo["present_position"] == 2048 + round(0.2 / RAD_PER_TICK)


@given(st.floats(-3.14, 3.14))
def test_the_present_position_is_read_in_ticks(position_rad: float) -> None:
    servo = VirtualDynamixel(XL430, 1)
    servo.set_present_rad(position_rad)
    read_rad = (servo["present_position"] - 2048) * RAD_PER_TICK
    assert read_rad == pytest.approx(position_rad, abs=RAD_PER_TICK / 2 + 1e-12)


def test_the_watchdog_stops_a_servo_that_nobody_talks_to(servo: VirtualDynamixel) -> None:
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
    assert write(servo, "goal_velocity", 0) == RANGE_ERROR
    assert write(servo, "bus_watchdog", 5) == RANGE_ERROR  # only 0 clears it
    assert write(servo, "bus_watchdog", 0) == 0
    assert write(servo, "goal_position", 2048) == 0


def test_the_watchdog_sleeps_while_torque_is_off(servo: VirtualDynamixel) -> None:
    write(servo, "bus_watchdog", 5)
    servo.step(10.0)
    assert servo["bus_watchdog"] == 5


def test_a_hardware_error_drops_torque_until_a_reboot(servo: VirtualDynamixel) -> None:
    write(servo, "torque_enable", 1)
    servo.latch_hardware_error(1 << 5)
    assert not servo.torque_on
    assert servo.alert == ALERT_BIT
    assert write(servo, "torque_enable", 1) == RESULT_FAIL
    servo.set_present_rad(0.3)
    servo.step(0.01)
    servo.reboot()
    assert servo.alert == 0
    assert servo["goal_position"] == servo["present_position"] == 2048 + round(0.3 / RAD_PER_TICK)
    assert write(servo, "torque_enable", 1) == 0


def test_an_error_that_register_63_does_not_name_is_shown_and_no_more(
    servo: VirtualDynamixel,
) -> None:
    assert write(servo, "shutdown", 0) == 0
    write(servo, "torque_enable", 1)
    servo.overload()
    assert servo.alert == ALERT_BIT
    assert servo.torque_on


@pytest.mark.parametrize(
    ("sensor", "raw", "status"),
    [
        ("present_temperature", 73, 1 << 2),
        ("present_temperature", 72, 0),
        ("present_input_voltage", 59, 1 << 0),
        ("present_input_voltage", 141, 1 << 0),
    ],
)
def test_sensors_past_their_limits_latch_an_error(
    servo: VirtualDynamixel, sensor: str, raw: int, status: int
) -> None:
    servo.sense(sensor, raw)
    assert servo["hardware_error_status"] == status
    servo.reboot()
    assert servo[sensor] == raw  # the world has not changed
    assert servo["hardware_error_status"] == status


def test_the_profile_acceleration_starts_it_gently(servo: VirtualDynamixel) -> None:
    write(servo, "torque_enable", 1)
    write(servo, "profile_acceleration", 1)
    goal_rad(servo, 1.0)
    servo.step(0.1)
    servo.step(0.1)
    rad_s2 = 214.577 * 2 * 3.14159265 / 3600
    assert servo["velocity_trajectory"] == round(rad_s2 * 0.2 / 0.02398)
    assert servo["moving"] == 1


def test_a_profile_by_time_arrives_in_time(servo: VirtualDynamixel) -> None:
    servo = VirtualDynamixel(XL430, 1)
    write(servo, "drive_mode", 1 << 2)
    write(servo, "torque_enable", 1)
    write(servo, "profile_velocity", 1000)  # ms
    write(servo, "profile_acceleration", 200)
    goal_rad(servo, 1.0)
    at_rad = []
    for _ in range(220):
        servo.step(0.005)
        at_rad.append(servo.setpoint_rad)
    assert at_rad[99] == pytest.approx(0.5, abs=0.02)
    assert at_rad[180] < 1.0 - 0.01
    assert at_rad[219] == pytest.approx(1.0, abs=RAD_PER_TICK)


def test_velocity_mode_turns_without_end(servo: VirtualDynamixel) -> None:
    write(servo, "operating_mode", 1)
    write(servo, "torque_enable", 1)
    assert write(servo, "goal_velocity", 266) == LIMIT_ERROR  # velocity_limit is 265
    assert write(servo, "goal_velocity", -20) == 0
    for _ in range(100):
        servo.step(0.1)
    assert servo.setpoint_rad == pytest.approx(-20 * 0.02398 * 10, rel=1e-3)
    assert servo["present_velocity"] == -20


def test_a_goal_may_turn_torque_on(servo: VirtualDynamixel) -> None:
    write(servo, "drive_mode", 1 << 3)
    goal_rad(servo, 0.1)
    assert servo.torque_on
    servo.overload()
    goal_rad(servo, 0.0)
    assert not servo.torque_on


def test_the_homing_offset_shifts_what_is_read_and_what_is_asked(servo: VirtualDynamixel) -> None:
    write(servo, "homing_offset", -100)
    assert servo["present_position"] == 1948
    write(servo, "torque_enable", 1)
    write(servo, "goal_position", 1948)
    servo.step(1.0)
    assert servo.setpoint_rad == 0.0


def test_the_horn_follows_the_setpoint_with_a_lag(servo: VirtualDynamixel) -> None:
    write(servo, "torque_enable", 1)
    goal_rad(servo, 0.5)
    servo.step(0.01)
    assert 2048 < servo["present_position"] < servo["position_trajectory"]
    for _ in range(100):
        servo.step(0.01)
    assert servo["present_position"] == servo["goal_position"]


def test_what_is_unknown_to_old_firmware() -> None:
    old = next(table for table in TABLES if table.name == "xl430-w250" and table is not XL430)
    servo = VirtualDynamixel(old, 1)
    assert servo.write(98, b"\x05") == ACCESS_ERROR  # no watchdog before v38
    assert write(servo, "torque_enable", 1) == 0
    goal_rad(servo, 0.1)
    servo.step(10.0)
    assert servo["present_position"] == servo["goal_position"]
