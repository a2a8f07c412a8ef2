"""The bus of Dynamixel servos."""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from hw_drivers.bus.block import Block
from hw_drivers.bus.bus import PING_TRIES, Pong, ServoBus
from hw_drivers.bus.port import Port
from hw_drivers.bus.reader import BlockReader
from hw_drivers.bus.registers import Item, Model
from hw_drivers.bus.wire import Heard
from hw_drivers.dynamixel.cycle_requests import SyncWriter, fast_read_request, sync_read_request
from hw_drivers.dynamixel.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    ERROR_NUMBERS,
    MAX_ID,
    StatusParser,
    make_ping,
    make_read,
    make_reboot,
    make_write,
)
from v2a.clock import Clock

# On a broadcast ping every possible id has its own 3 ms to answer (DynamixelSDK, broadcastPing).
_SCAN_TIMEOUT_S = 0.003 * (MAX_ID + 1)


class DynamixelBus(ServoBus):
    """Dynamixel X servos, Protocol 2.0."""

    def __init__(
        self, port: Port, clock: Clock, models: Mapping[int, Model], timeout_s: float = 0.02
    ) -> None:
        super().__init__(port, clock, models, timeout_s)
        self._writers: dict[tuple[str, tuple[int, ...]], SyncWriter] = {}

    def ping(self, servo_id: int) -> Pong | None:
        """See `ServoBus`."""
        answers = self._answers(make_ping(servo_id), 3, (servo_id,), PING_TRIES)
        return _pongs(answers).get(servo_id)

    def scan(self) -> dict[int, Pong]:
        """See `ServoBus`."""
        packet, everyone = make_ping(BROADCAST_ID), range(MAX_ID + 1)
        return _pongs(self.wire.ask_one(packet, StatusParser(), everyone, _SCAN_TIMEOUT_S))

    def reboot(self, servo_id: int) -> None:
        """See `ServoBus`. Source: e-manual, "Reboot (0x08)"."""
        self._request(servo_id, "reboot", make_reboot(servo_id), 0)

    def sync_write(self, name: str, ids: tuple[int, ...], raw: Sequence[int]) -> None:
        """See `ServoBus`."""
        key = (name, ids)
        if key not in self._writers:
            self._writers[key] = SyncWriter(self.shared_item(name, ids), ids)
        self.wire.send(self._writers[key].packet(raw))

    def cycle_reader(self, block: Block) -> BlockReader:
        """See `ServoBus`. Uses fast sync read if every servo's firmware has it and a trial works.

        Some adapters do not let it through (ROBOTIS-GIT/dynamixel_hardware_interface#79).
        """
        pongs = {servo_id: self.ping(servo_id) for servo_id in block.ids}
        known = all(pong and self._knows_fast_read(i, pong) for i, pong in pongs.items())
        fast = fast_read_request if known else None
        reader = BlockReader(self.wire, block.ids, sync_read_request, fast)
        reader.probe(block, self.timeout_s)
        return reader

    def _knows_fast_read(self, servo_id: int, pong: Pong) -> bool:
        since = self.models[servo_id].fast_read_firmware
        return since is not None and pong.firmware_version >= since

    def reader(self, ids: tuple[int, ...]) -> BlockReader:
        """See `ServoBus`."""
        return BlockReader(self.wire, ids, sync_read_request)

    def _read_packet(self, servo_id: int, item: Item) -> bytes:
        return make_read(servo_id, item.address, item.size)

    def _write_packet(self, servo_id: int, item: Item, raw: int) -> bytes:
        return make_write(servo_id, item.address, item.pack(raw))

    def _parser(self, packet: bytes, size: int) -> StatusParser:
        return StatusParser()

    def _refusal(self, error: int) -> str:
        number = error & ~ALERT_BIT
        return ERROR_NUMBERS.get(number, f"unknown error {number}") if number else ""


def _pongs(answers: Heard) -> dict[int, Pong]:
    return {
        servo_id: Pong(*struct.unpack("<HB", status.params))
        for servo_id, status in sorted(answers.items())
        if len(status.params) == 3
    }
