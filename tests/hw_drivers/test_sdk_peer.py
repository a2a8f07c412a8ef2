"""The vendor's own SDK against the virtual servos, over a pseudo terminal."""

from __future__ import annotations

from collections.abc import Iterator

import dynamixel_sdk as sdk
import pytest

from hw_drivers.virtual.chain import VirtualChain
from hw_drivers.virtual.pty import PtyServer

IDS = (1, 2, 3, 4, 5)


@pytest.fixture
def port(pty: PtyServer) -> Iterator[sdk.PortHandler]:
    port = sdk.PortHandler(pty.path)
    assert port.openPort()
    yield port
    port.closePort()


@pytest.fixture
def handler() -> sdk.Protocol2PacketHandler:
    return sdk.PacketHandler(2.0)


def test_ping(port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler) -> None:
    assert handler.ping(port, 3) == (1060, sdk.COMM_SUCCESS, 0)
    assert handler.ping(port, 9)[1] == sdk.COMM_RX_TIMEOUT


def test_broadcast_ping(port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler) -> None:
    found, result = handler.broadcastPing(port)
    assert result == sdk.COMM_SUCCESS
    assert found == {servo_id: [1060, 46] for servo_id in IDS}


def test_read_and_write(port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler) -> None:
    assert handler.write4ByteTxRx(port, 2, 116, 1234) == (sdk.COMM_SUCCESS, 0)
    assert handler.read4ByteTxRx(port, 2, 116) == (1234, sdk.COMM_SUCCESS, 0)


@pytest.mark.parametrize(
    ("address", "value", "error"),
    [
        (64, 7, sdk.ERRNUM_DATA_RANGE),
        (116, 9, sdk.ERRNUM_DATA_LENGTH),
        (146, 9, sdk.ERRNUM_ACCESS),
    ],
)
def test_error_numbers(
    port: sdk.PortHandler,
    handler: sdk.Protocol2PacketHandler,
    address: int,
    value: int,
    error: int,
) -> None:
    assert handler.write1ByteTxRx(port, 1, address, value) == (sdk.COMM_SUCCESS, error)


def test_alert_bit(
    port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler, chain: VirtualChain
) -> None:
    with chain.lock:
        chain.servos[1].latch_hardware_error(1 << 5)
    assert handler.read1ByteTxRx(port, 1, 70) == (1 << 5, sdk.COMM_SUCCESS, 0x80)
    assert handler.reboot(port, 1) == (sdk.COMM_SUCCESS, 0x80)
    assert handler.read1ByteTxRx(port, 1, 70) == (0, sdk.COMM_SUCCESS, 0)


def test_sync_write_then_sync_read(
    port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler
) -> None:
    write = sdk.GroupSyncWrite(port, handler, 116, 4)
    read = sdk.GroupSyncRead(port, handler, 116, 4)
    for servo_id in IDS:
        write.addParam(servo_id, list((1000 + servo_id).to_bytes(4, "little")))
        read.addParam(servo_id)
    assert write.txPacket() == sdk.COMM_SUCCESS
    assert read.txRxPacket() == sdk.COMM_SUCCESS
    assert [read.getData(i, 116, 4) for i in IDS] == [1001, 1002, 1003, 1004, 1005]


def test_the_servo_moves_to_what_the_sdk_asks(
    port: sdk.PortHandler, handler: sdk.Protocol2PacketHandler, chain: VirtualChain
) -> None:
    handler.write1ByteTxRx(port, 1, 64, 1)
    handler.write4ByteTxRx(port, 1, 116, 3000)
    chain.step(10.0)
    assert handler.read4ByteTxRx(port, 1, 132) == (3000, sdk.COMM_SUCCESS, 0)
