"""Virtual Feetech servos, by the packets of the vendor's protocol."""

from __future__ import annotations

import math

import pytest

from hw_drivers.feetech.models import MODELS
from hw_drivers.feetech.packet import (
    BROADCAST_ID,
    REG_WRITE,
    Status,
    StatusParser,
    make_action,
    make_packet,
    make_ping,
    make_read,
    make_sync_read,
    make_sync_write,
    make_write,
)
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech

STS, SCS = MODELS["sts3215"], MODELS["scs0009"]
GOAL, POSITION = 42, 56
TORQUE, LOCK = 40, 55


@pytest.fixture
def chain() -> VirtualFeetechBus:
    return VirtualFeetechBus(VirtualFeetech(STS, servo_id) for servo_id in (1, 2, 3))


def ask(chain: VirtualFeetechBus, request: bytes, size: int = 0) -> list[Status]:
    return StatusParser(size).feed(chain.respond(request))


def write(servo: VirtualFeetech, name: str, raw: int) -> None:
    item = servo.model.items[name]
    servo.write(item.address, item.pack(raw))


def test_ping_one_and_all(chain: VirtualFeetechBus) -> None:
    assert ask(chain, make_ping(2)) == [Status(2, 0, b"")]
    assert ask(chain, make_ping(9)) == []
    assert [status.id for status in ask(chain, make_ping(BROADCAST_ID))] == [1, 2, 3]


def test_read_write_and_sync(chain: VirtualFeetechBus) -> None:
    assert ask(chain, make_write(1, GOAL, b"\x10\x08")) == [Status(1, 0, b"")]
    assert chain.respond(make_sync_write(GOAL, 2, {2: b"\x00\x04", 3: b"\x01\x04"})) == b""
    assert [status.params for status in ask(chain, make_sync_read(GOAL, 2, (1, 2, 3)), 2)] == [
        b"\x10\x08",
        b"\x00\x04",
        b"\x01\x04",
    ]
    assert ask(chain, make_read(1, 3, 2), 2) == [Status(1, 0, b"\x09\x03")]


def test_a_registered_write_waits_for_the_action(chain: VirtualFeetechBus) -> None:
    assert ask(chain, make_packet(1, REG_WRITE, bytes((GOAL, 0x00, 0x04)))) == [Status(1, 0, b"")]
    assert (chain.servos[1]["goal_position"], chain.servos[1]["registered_instruction"]) == (
        2048,
        1,
    )
    assert chain.respond(make_action()) == b""
    assert (chain.servos[1]["goal_position"], chain.servos[1]["registered_instruction"]) == (
        1024,
        0,
    )


def test_the_lock_keeps_the_eeprom_in_silence(chain: VirtualFeetechBus) -> None:
    assert ask(chain, make_write(1, 7, b"\x32")) == [Status(1, 0, b"")]
    assert chain.servos[1]["return_delay_time"] == 0
    chain.respond(make_write(1, LOCK, b"\x00") + make_write(1, 7, b"\x32"))
    assert chain.servos[1]["return_delay_time"] == 50


def test_a_write_out_of_range_is_clipped_in_silence(chain: VirtualFeetechBus) -> None:
    assert ask(chain, make_write(1, 41, b"\xff")) == [Status(1, 0, b"")]
    assert chain.servos[1]["acceleration"] == 254
    chain.respond(make_write(1, POSITION, b"\x00\x00"))
    assert chain.servos[1]["present_position"] == 2048  # read only


def test_one_write_of_many_registers(chain: VirtualFeetechBus) -> None:
    chain.respond(make_write(1, 41, b"\x32\x00\x04\x00\x00\x60\x09"))  # the SDK's WritePosEx
    servo = chain.servos[1]
    assert (servo["acceleration"], servo["goal_position"], servo["goal_velocity"]) == (
        50,
        1024,
        2400,
    )


def test_it_moves_within_speed_acceleration_and_limits() -> None:
    servo = VirtualFeetech(STS, 1)
    write(servo, "lock", 0)
    write(servo, "max_position_limit", 3000)
    write(servo, "torque_enable", 1)
    write(servo, "goal_velocity", 1000)
    write(servo, "acceleration", 100)
    write(servo, "goal_position", 4000)
    for _ in range(20):
        servo.step(0.005)
    per_tick_rad = math.tau / 4096
    assert servo.setpoint_rad <= 0.5 * 100 * 100 * per_tick_rad * 0.11**2
    for _ in range(400):
        servo.step(0.005)
    assert servo["present_position"] == 3000


def test_negative_numbers_have_a_sign_bit(chain: VirtualFeetechBus) -> None:
    servo = chain.servos[1]
    servo.write(LOCK, b"\x00")
    chain.respond(make_write(1, 33, b"\x01") + make_write(1, 46, b"\xe8\x83"))  # wheel mode, -1000
    chain.respond(make_write(1, TORQUE, b"\x01"))
    for _ in range(100):
        chain.step(0.01)
    assert ask(chain, make_read(1, 58, 2), 2) == [Status(1, 0, b"\xe8\x83")]


def test_a_turn_wraps_unless_turns_are_counted() -> None:
    servo = VirtualFeetech(STS, 1)
    servo.set_present_rad(math.tau)
    assert servo["present_position"] == 2048
    write(servo, "lock", 0)
    write(servo, "phase", 0x10)
    assert servo["present_position"] == 2048 + 4096


def test_calibrating_makes_here_the_centre() -> None:
    servo = VirtualFeetech(STS, 1)
    servo.set_present_rad(0.5)
    write(servo, "torque_enable", 128)
    assert servo["present_position"] == 2048
    assert servo["homing_offset"] == round(0.5 / math.tau * 4096)
    assert not servo.torque_on


def test_an_overload_drops_torque_until_it_is_asked_for_again(chain: VirtualFeetechBus) -> None:
    chain.respond(make_write(1, TORQUE, b"\x01"))
    chain.servos[1].overload()
    assert ask(chain, make_read(1, TORQUE, 1), 1) == [Status(1, 1 << 5, b"\x00")]
    chain.respond(make_write(1, TORQUE, b"\x01"))
    assert ask(chain, make_read(1, TORQUE, 1), 1) == [Status(1, 0, b"\x01")]


@pytest.mark.parametrize(
    ("sensor", "raw", "alarms"), [("present_temperature", 71, 4), ("present_input_voltage", 39, 1)]
)
def test_sensors_past_their_limits_raise_an_alarm(sensor: str, raw: int, alarms: int) -> None:
    servo = VirtualFeetech(STS, 1)
    servo.sense(sensor, raw)
    assert servo.alarms == alarms


def test_scs_servos_are_big_endian_and_know_no_sync_read() -> None:
    chain = VirtualFeetechBus([VirtualFeetech(SCS, 1)])
    assert ask(chain, make_read(1, POSITION, 2), 2) == [Status(1, 0, b"\x02\x00")]  # 512
    assert chain.respond(make_sync_read(POSITION, 2, (1,))) == b""
    assert chain.respond(make_ping(BROADCAST_ID)) == b""
    chain.servos[1].set_present_rad(10.0)
    assert chain.servos[1]["present_position"] == 1023  # the end of the potentiometer


def test_without_a_return_level_only_reads_are_answered(chain: VirtualFeetechBus) -> None:
    chain.respond(make_write(1, LOCK, b"\x00") + make_write(1, 8, b"\x00"))
    assert chain.respond(make_write(1, GOAL, b"\x00\x04")) == b""
    assert ask(chain, make_read(1, GOAL, 2), 2) == [Status(1, 0, b"\x00\x04")]
