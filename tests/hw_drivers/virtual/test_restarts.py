"""Virtual servos restart, mirror and obey as the e-manual and Feetech's table say."""

from __future__ import annotations

import pytest

from hw_drivers.dynamixel.models import MODELS, TABLES
from hw_drivers.dynamixel.packet import make_ping, make_read, make_sync_write, make_write
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech.models import MODELS as FEETECH
from hw_drivers.feetech.virtual_servo import VirtualFeetech

XM430 = MODELS["xm430-w350"]
TORQUE, GOAL = 64, 116


def test_a_restart_clears_the_ram_and_keeps_the_eeprom() -> None:
    servo = VirtualDynamixel(XM430, 1)
    for name, raw in {
        "homing_offset": 100,
        "current_limit": 300,
        "torque_enable": 1,
        "bus_watchdog": 25,
        "profile_velocity": 42,
        "goal_current": 17,
    }.items():
        servo._set(name, raw)
    servo.reboot()
    assert [servo[n] for n in ("torque_enable", "bus_watchdog", "profile_velocity")] == [0, 0, 0]
    assert (servo["homing_offset"], servo["goal_current"]) == (100, 300)
    assert servo["goal_position"] == servo["present_position"]
    servo._set("startup_configuration", 1)
    servo.reboot()
    assert servo.torque_on


def test_a_feetech_restart_leaves_no_torque_and_no_speed() -> None:
    servo = VirtualFeetech(FEETECH["sts3215"], 1)
    for name, raw in {"torque_enable": 1, "goal_velocity": 300, "max_torque_limit": 600}.items():
        servo._set(name, raw)
    servo.rest_at(2500)
    servo.reboot()
    assert (servo["torque_enable"], servo["goal_velocity"], servo["lock"]) == (0, 0, 1)
    assert (servo["goal_position"], servo["max_torque_limit"]) == (2500, 600)


@pytest.mark.parametrize("kind", ["dynamixel", "feetech"])
def test_a_mirrored_servo_moves_the_other_way_and_reads_what_it_was_told(kind: str) -> None:
    servo: VirtualDynamixel | VirtualFeetech
    if kind == "dynamixel":
        servo = VirtualDynamixel(XM430, 1)
        servo._set("drive_mode", 1)
    else:
        servo = VirtualFeetech(FEETECH["sts3215"], 1)
        servo._set("phase", 12 | 0x81)
    servo._set("torque_enable", 1)
    servo._set("goal_position", 2048 + 500)
    for _ in range(100):
        servo.step(0.05)
    assert servo["present_position"] == 2548
    assert servo.setpoint_rad < -0.7


def test_a_coarse_speed_unit_is_fifty_times_larger() -> None:
    moved = []
    for phase in (12, 8):
        servo = VirtualFeetech(FEETECH["sts3215"], 1)
        for name, raw in {"phase": phase, "torque_enable": 1, "goal_velocity": 10}.items():
            servo._set(name, raw)
        servo._set("goal_position", 4095)
        servo.step(0.1)
        moved.append(servo.setpoint_rad)
    assert moved[1] == pytest.approx(50 * moved[0])


def test_a_shadow_carries_out_what_its_joints_servo_is_told_and_does_not_answer() -> None:
    bus = VirtualDynamixelBus([VirtualDynamixel(XM430, i) for i in (1, 2, 3)])
    bus.servos[3]._set("secondary_id", 2)
    only_two = make_ping(2)
    assert len(bus.replies(only_two)) == 1
    assert [reply.servo_id for reply in bus.replies(make_read(2, 132, 4))] == [2]
    assert len(bus.replies(make_write(2, TORQUE, b"\1"))) == 1
    assert [servo.torque_on for servo in bus.servos.values()] == [False, True, True]
    bus.respond(make_sync_write(GOAL, 4, {2: (2500).to_bytes(4, "little")}))
    assert [servo["goal_position"] for servo in bus.servos.values()] == [2048, 2500, 2500]
    assert len(bus.replies(make_write(3, TORQUE, b"\0"))) == 1  # by its own id it answers
    assert [servo.torque_on for servo in bus.servos.values()] == [False, True, False]


def test_in_current_based_position_mode_a_servo_without_current_rests() -> None:
    servo = VirtualDynamixel(XM430, 1)
    for name, raw in {"operating_mode": 5, "torque_enable": 1, "goal_position": 2500}.items():
        servo._set(name, raw)
    servo._set("goal_current", 0)
    servo.step(1.0)
    assert servo.setpoint_rad == 0.0
    servo._set("goal_current", 10)
    servo.step(1.0)
    assert servo["position_trajectory"] == 2500


def test_every_model_begins_with_the_current_and_the_pwm_of_its_limits() -> None:
    for model in TABLES:
        servo = VirtualDynamixel(model, 1)
        assert servo["goal_pwm"] == servo["pwm_limit"] > 0
        if "goal_current" in model.items:
            assert servo["goal_current"] == servo["current_limit"] > 0
