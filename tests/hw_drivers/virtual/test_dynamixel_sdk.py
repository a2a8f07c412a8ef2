"""The vendor's own SDK against the virtual servos, over a pseudo terminal."""

from __future__ import annotations

from typing import TypeAlias

import dynamixel_sdk as sdk
import pytest

from hw_drivers.bus.registers import Model
from hw_drivers.dynamixel.models import MODELS, RAD_PER_TICK, TABLES
from hw_drivers.dynamixel.packet_fast import make_fast_sync_read
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.pty import PtyServer
from tests.hw_drivers.virtual.conftest import IMPATIENCE_MS, PATIENCE_MS, PatientPort

IDS = (1, 2, 3, 4, 5)
TORQUE, GOAL, POSITION, RETURN_DELAY, WATCHDOG = 64, 116, 132, 9, 98
OK = (sdk.COMM_SUCCESS, 0)

Handler: TypeAlias = sdk.Protocol2PacketHandler
Port = PatientPort


def goal_of(servo_id: int) -> list[int]:
    return list((1000 + servo_id).to_bytes(4, "little"))


def test_ping(port: Port, handler: Handler) -> None:
    assert handler.ping(port, 3) == (1060, sdk.COMM_SUCCESS, 0)
    port.patience_ms = IMPATIENCE_MS
    assert handler.ping(port, 9)[1] == sdk.COMM_RX_TIMEOUT


def test_broadcast_ping(port: Port, handler: Handler) -> None:
    found, result = handler.broadcastPing(port)
    assert result == sdk.COMM_SUCCESS
    assert found == {servo_id: [1060, 46] for servo_id in IDS}


@pytest.mark.parametrize("model", MODELS.values(), ids=list(MODELS))
def test_every_model_says_what_it_is(
    model: Model, handler: Handler, chain: VirtualDynamixelBus
) -> None:
    chain.servos = {1: VirtualDynamixel(model, 1)}
    server = PtyServer(chain)
    port = PatientPort(server.path)
    assert port.openPort()
    assert handler.ping(port, 1) == (model.number, sdk.COMM_SUCCESS, 0)
    version = (model.items["firmware_version"].initial, *OK)
    assert handler.read1ByteTxRx(port, 1, 6) == version
    port.closePort()
    server.close()


def test_read_and_write(port: Port, handler: Handler) -> None:
    assert handler.write4ByteTxRx(port, 2, GOAL, 1234) == OK
    assert handler.read4ByteTxRx(port, 2, GOAL) == (1234, *OK)


@pytest.mark.parametrize(
    ("address", "value", "error"),
    [
        (TORQUE, 7, sdk.ERRNUM_DATA_RANGE),
        (GOAL, 9, sdk.ERRNUM_DATA_LENGTH),
        (146, 9, sdk.ERRNUM_ACCESS),
    ],
)
def test_error_numbers(port: Port, handler: Handler, address: int, value: int, error: int) -> None:
    assert handler.write1ByteTxRx(port, 1, address, value) == (sdk.COMM_SUCCESS, error)


def test_a_goal_outside_the_limits_is_refused(port: Port, handler: Handler) -> None:
    assert handler.write4ByteTxRx(port, 1, GOAL, 4096) == (
        sdk.COMM_SUCCESS,
        sdk.ERRNUM_DATA_LIMIT,
    )


def test_eeprom_is_locked_while_torque_is_on(port: Port, handler: Handler) -> None:
    assert handler.write1ByteTxRx(port, 1, TORQUE, 1) == OK
    refused = (sdk.COMM_SUCCESS, sdk.ERRNUM_ACCESS)
    assert handler.write1ByteTxRx(port, 1, RETURN_DELAY, 0) == refused
    assert handler.write1ByteTxRx(port, 1, TORQUE, 0) == OK
    assert handler.write1ByteTxRx(port, 1, RETURN_DELAY, 0) == OK


def test_a_new_id_is_answered_to(port: Port, handler: Handler) -> None:
    assert handler.write1ByteTxRx(port, 3, 7, 9) == OK
    assert handler.ping(port, 9) == (1060, *OK)


def test_alert_bit_until_a_reboot(port: Port, handler: Handler, chain: VirtualDynamixelBus) -> None:
    with chain.lock:
        chain.servos[1].overload()
    assert handler.read1ByteTxRx(port, 1, 70) == (1 << 5, sdk.COMM_SUCCESS, 0x80)
    refused = (sdk.COMM_SUCCESS, 0x80 | sdk.ERRNUM_RESULT_FAIL)
    assert handler.write1ByteTxRx(port, 1, TORQUE, 1) == refused
    assert handler.reboot(port, 1) == (sdk.COMM_SUCCESS, 0x80)
    assert handler.read1ByteTxRx(port, 1, 70) == (0, *OK)
    assert handler.write1ByteTxRx(port, 1, TORQUE, 1) == OK


def test_the_bus_watchdog(port: Port, handler: Handler, chain: VirtualDynamixelBus) -> None:
    assert handler.write1ByteTxRx(port, 1, TORQUE, 1) == OK
    assert handler.write1ByteTxRx(port, 1, WATCHDOG, 5) == OK
    chain.step(0.101)
    assert handler.read1ByteTxRx(port, 1, WATCHDOG) == (0xFF, *OK)  # -1
    refused = (sdk.COMM_SUCCESS, sdk.ERRNUM_DATA_RANGE)
    assert handler.write4ByteTxRx(port, 1, GOAL, 2000) == refused
    assert handler.write1ByteTxRx(port, 1, WATCHDOG, 5) == refused
    assert handler.write1ByteTxRx(port, 1, WATCHDOG, 0) == OK
    assert handler.write4ByteTxRx(port, 1, GOAL, 2000) == OK


def test_a_sync_write_to_a_tripped_watchdog_is_lost_in_silence(
    port: Port, handler: Handler, chain: VirtualDynamixelBus
) -> None:
    handler.write1ByteTxRx(port, 1, TORQUE, 1)
    handler.write1ByteTxRx(port, 1, WATCHDOG, 1)
    chain.step(0.1)
    write = sdk.GroupSyncWrite(port, handler, GOAL, 4)
    write.addParam(1, goal_of(1))
    assert write.txPacket() == sdk.COMM_SUCCESS
    assert handler.read4ByteTxRx(port, 1, GOAL) == (2048, *OK)


@pytest.mark.parametrize("read", ["txRxPacket", "fastSyncRead"])
def test_sync_write_then_sync_read(port: Port, handler: Handler, read: str) -> None:
    writer = sdk.GroupSyncWrite(port, handler, GOAL, 4)
    reader = sdk.GroupSyncRead(port, handler, GOAL, 4)
    for servo_id in IDS:
        writer.addParam(servo_id, goal_of(servo_id))
        reader.addParam(servo_id)
    assert writer.txPacket() == sdk.COMM_SUCCESS
    assert getattr(reader, read)() == sdk.COMM_SUCCESS
    assert [reader.getData(i, GOAL, 4) for i in IDS] == [1001, 1002, 1003, 1004, 1005]


@pytest.mark.parametrize("read", ["txRxPacket", "fastBulkRead"])
def test_bulk_write_then_bulk_read(port: Port, handler: Handler, read: str) -> None:
    writer = sdk.GroupBulkWrite(port, handler)
    writer.addParam(1, GOAL, 4, goal_of(1))
    writer.addParam(2, 65, 1, [1])
    assert writer.txPacket() == sdk.COMM_SUCCESS
    reader = sdk.GroupBulkRead(port, handler)
    reader.addParam(1, GOAL, 4)
    reader.addParam(2, 65, 1)
    reader.addParam(3, 144, 2)
    assert getattr(reader, read)() == sdk.COMM_SUCCESS
    assert reader.getData(1, GOAL, 4) == 1001
    assert reader.getData(2, 65, 1) == 1
    assert reader.getData(3, 144, 2) == 120


def test_reg_write_waits_for_the_action(port: Port, handler: Handler) -> None:
    for servo_id in (1, 2):
        sent = handler.regWriteTxRx(port, servo_id, GOAL, 4, goal_of(servo_id))
        assert sent == OK
    assert handler.read4ByteTxRx(port, 1, GOAL) == (2048, *OK)
    assert handler.read1ByteTxRx(port, 1, 69) == (1, *OK)
    assert handler.action(port, sdk.BROADCAST_ID) == sdk.COMM_SUCCESS
    assert handler.read4ByteTxRx(port, 1, GOAL) == (1001, *OK)
    assert handler.read4ByteTxRx(port, 2, GOAL) == (1002, *OK)
    assert handler.read1ByteTxRx(port, 1, 69) == (0, *OK)


def test_factory_reset_keeps_what_it_is_told_to(port: Port, handler: Handler) -> None:
    assert handler.write1ByteTxRx(port, 4, RETURN_DELAY, 7) == OK
    assert handler.factoryReset(port, 4, 0x02) == OK
    assert handler.read1ByteTxRx(port, 4, RETURN_DELAY) == (250, *OK)


def test_clear_forgets_whole_turns(
    port: Port, handler: Handler, chain: VirtualDynamixelBus
) -> None:
    with chain.lock:
        chain.servos[1].set_present_rad(7.0)
    assert handler.read4ByteTxRx(port, 1, POSITION)[0] == 2048 + 4563
    assert handler.clearMultiTurn(port, 1) == OK
    assert handler.read4ByteTxRx(port, 1, POSITION)[0] == 2048 + 4563 - 4096


def test_the_servo_moves_to_what_the_sdk_asks(
    port: Port, handler: Handler, chain: VirtualDynamixelBus
) -> None:
    handler.write1ByteTxRx(port, 1, TORQUE, 1)
    handler.write4ByteTxRx(port, 1, GOAL, 3000)
    chain.step(10.0)
    assert handler.read4ByteTxRx(port, 1, POSITION) == (3000, *OK)


def test_servos_are_deaf_at_another_rate(
    port: Port, handler: Handler, chain: VirtualDynamixelBus
) -> None:
    port.patience_ms = IMPATIENCE_MS
    assert port.setBaudRate(57_600)
    assert handler.ping(port, 1)[1] == sdk.COMM_RX_TIMEOUT
    with chain.lock:
        chain.servos[2].set_baud(57_600)
    port.patience_ms = PATIENCE_MS
    assert handler.ping(port, 2) == (1060, *OK)
    assert handler.write1ByteTxRx(port, 2, 8, 3) == OK  # answered at the old rate
    assert port.setBaudRate(1_000_000)
    assert handler.ping(port, 2) == (1060, *OK)


def test_a_fast_read_is_the_manuals(chain: VirtualDynamixelBus) -> None:
    """e-manual, Protocol 2.0, the example of "Fast Sync Read (0x8A)"."""
    chain.servos = {k: VirtualDynamixel(MODELS["xm430-w350"], k) for k in (3, 7, 4)}
    for servo_id, ticks in ((3, 166), (7, 2079), (4, 1023)):
        chain.servos[servo_id].set_present_rad((ticks - 2048) * RAD_PER_TICK)
    answer = chain.respond(make_fast_sync_read(POSITION, 4, (3, 7, 4)))
    assert answer == bytes.fromhex(
        "FFFFFD00 FE 1900 55 0003A60000008408 00071F08000016CA 0004FF030000D19E"
    )


def test_a_fast_read_ends_at_the_first_silent_servo(chain: VirtualDynamixelBus) -> None:
    whole = chain.respond(make_fast_sync_read(POSITION, 4, IDS))
    del chain.servos[3]
    assert chain.respond(make_fast_sync_read(POSITION, 4, IDS)) == whole[: 8 + 2 * 8]
    assert chain.respond(make_fast_sync_read(POSITION, 4, (3, 1))) == b""


def test_old_firmware_knows_no_fast_read() -> None:
    old = next(table for table in TABLES if table.firmware[1] < 45)
    chain = VirtualDynamixelBus([VirtualDynamixel(old, 1)])
    assert chain.respond(make_fast_sync_read(POSITION, 4, (1,))) == b""
