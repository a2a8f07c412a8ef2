"""Each fault, as the vendor's SDK sees it; and what the SDK makes of it is our reason to differ."""

from __future__ import annotations

import os
import termios
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import dynamixel_sdk as sdk
import pytest
import serial

from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.virtual.faults import FAULTS, PlantedFault
from hw_drivers.virtual.pty import PtyServer
from hw_drivers.virtual.wire_timing import Reply, Unplug
from tests.hw_drivers.virtual.conftest import IMPATIENCE_MS, PATIENCE_MS, PatientPort
from tests.waiting import until

pytestmark = pytest.mark.real_time

IDS = (1, 2, 3)
GONE = (serial.SerialException, OSError, termios.error)  # what a vanished port raises, by the call
POSITION = 132

Handler: TypeAlias = sdk.Protocol2PacketHandler
Port = PatientPort


def strike(name: str, replies: list[Reply], chain: VirtualDynamixelBus) -> list[Reply | Unplug]:
    return PlantedFault(name).strike(b"request", replies, chain.servos)


def replies(chain: VirtualDynamixelBus) -> list[Reply]:
    return [Reply(0.0005, b"packet%d" % servo_id, servo_id) for servo_id in chain.servos]


@pytest.mark.parametrize("name", FAULTS)
def test_each_fault_changes_what_arrives_or_what_the_servo_is(
    name: str, chain: VirtualDynamixelBus
) -> None:
    before = replies(chain)
    assert strike(name, before, chain) != before or chain.servos[1].alert
    assert before == replies(chain)


@pytest.mark.parametrize("name", FAULTS)
def test_nothing_is_made_of_no_answer(name: str, chain: VirtualDynamixelBus) -> None:
    assert strike(name, [], chain) == []


def test_every_third_answer_and_each_servo_in_turn(chain: VirtualDynamixelBus) -> None:
    fault = PlantedFault("drop", every=3)
    lost = []
    for _ in range(9):
        events = fault.strike(b"", replies(chain), chain.servos)
        left = {reply.servo_id for reply in events if isinstance(reply, Reply)}
        lost.append(sorted(chain.servos.keys() - left))
    assert lost == [[], [], [1], [], [], [2], [], [], [3]]


@pytest.mark.parametrize(
    ("name", "result", "patience_ms"),
    [
        ("drop", sdk.COMM_RX_TIMEOUT, IMPATIENCE_MS),
        ("crc", sdk.COMM_RX_CORRUPT, PATIENCE_MS),
        ("truncate", sdk.COMM_RX_CORRUPT, 1500.0),  # all of which it waits for the rest
        ("noise", sdk.COMM_SUCCESS, PATIENCE_MS),
        ("echo", sdk.COMM_SUCCESS, PATIENCE_MS),
        ("late", sdk.COMM_RX_TIMEOUT, IMPATIENCE_MS),
    ],
)
def test_what_a_single_read_comes_to(
    port: Port, handler: Handler, pty: PtyServer, name: str, result: int, patience_ms: float
) -> None:
    pty.fault = PlantedFault(name)
    port.patience_ms = patience_ms
    read = 2048 if result == sdk.COMM_SUCCESS else 0
    assert handler.read4ByteTxRx(port, 2, POSITION) == (read, result, 0)


def test_one_damaged_answer_costs_the_sdk_the_whole_sync_read(
    port: Port, handler: Handler, pty: PtyServer
) -> None:
    pty.fault = PlantedFault("drop")
    port.patience_ms = IMPATIENCE_MS
    reader = sdk.GroupSyncRead(port, handler, POSITION, 4)
    for servo_id in IDS:
        reader.addParam(servo_id)
    assert reader.txRxPacket() == sdk.COMM_RX_TIMEOUT


def test_a_stale_answer_of_another_servo_is_skipped(
    port: Port, handler: Handler, pty: PtyServer
) -> None:
    pty.fault = PlantedFault("stale", every=2)
    assert handler.ping(port, 5) == (1060, sdk.COMM_SUCCESS, 0)
    assert handler.read4ByteTxRx(port, 2, POSITION) == (2048, sdk.COMM_SUCCESS, 0)


def test_an_alert_drops_torque_and_stays(
    port: Port, handler: Handler, pty: PtyServer, chain: VirtualDynamixelBus
) -> None:
    assert handler.write1ByteTxRx(port, 2, 64, 1) == (sdk.COMM_SUCCESS, 0)
    pty.fault = PlantedFault("alert")
    assert handler.read4ByteTxRx(port, 2, POSITION) == (2048, sdk.COMM_SUCCESS, 0)
    assert handler.read1ByteTxRx(port, 2, 70) == (1 << 5, sdk.COMM_SUCCESS, 0x80)
    assert not chain.servos[2].torque_on


@pytest.mark.parametrize("name", ["hang_up", "replug"])
def test_the_cable_comes_out(port: Port, handler: Handler, pty: PtyServer, name: str) -> None:
    pty.fault = PlantedFault(name)
    with pytest.raises(GONE):
        handler.ping(port, 1)


@pytest.fixture
def linked(chain: VirtualDynamixelBus, tmp_path: Path) -> Iterator[PtyServer]:
    server = PtyServer(chain, link=tmp_path / "arm")
    yield server
    server.close()


def open_port(path: str) -> PatientPort:
    port = PatientPort(path)
    assert port.openPort()
    return port


def test_it_is_plugged_in_again_at_the_same_link(linked: PtyServer, handler: Handler) -> None:
    port, first = open_port(linked.path), os.readlink(linked.path)
    assert handler.write1ByteTxRx(port, 1, 64, 1) == (sdk.COMM_SUCCESS, 0)
    linked.hang_up()
    assert not os.path.lexists(linked.path)
    taken = os.openpty()  # so that the terminal gets another number
    linked.replug()
    assert os.readlink(linked.path) != first
    with pytest.raises(GONE):
        handler.ping(port, 1)  # the old one is gone for good
    port.closePort()
    again = open_port(linked.path)
    assert handler.read1ByteTxRx(again, 1, 64) == (1, sdk.COMM_SUCCESS, 0)  # power stayed on
    again.closePort()
    linked.close()
    assert not os.path.lexists(linked.path)
    for fd in taken:
        os.close(fd)


def test_a_replug_comes_back_by_itself(
    linked: PtyServer, handler: Handler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hw_drivers.virtual.faults.REPLUG_S", 0.05)
    port = open_port(linked.path)
    linked.fault = PlantedFault("replug")
    with pytest.raises(GONE):
        handler.ping(port, 1)
    port.closePort()
    linked.fault = None
    until(lambda: os.path.exists(linked.path))
    again = open_port(linked.path)
    assert handler.ping(again, 1) == (1060, sdk.COMM_SUCCESS, 0)
    again.closePort()
