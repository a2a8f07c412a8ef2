"""The requests of every cycle, built once, and a quick check whether an answer is clean.

Nearly every answer is known to the byte, except for its data and its CRC, and so is nearly every
goal packet. This module computes only those bytes, and the CRC two bytes at a time. Any answer that
is not clean takes the slower parsers of `packet` and `packet_fast`.
"""

from __future__ import annotations

import struct
from array import array
from collections.abc import Sequence

import numpy as np

from hw_drivers.bus.registers import Item
from hw_drivers.bus.wire import Request
from hw_drivers.dynamixel.packet import (
    ALERT_BIT,
    BROADCAST_ID,
    HEADER,
    STATUS,
    SYNC_WRITE,
    StatusParser,
    crc16,
    make_sync_read,
    make_sync_write,
)
from hw_drivers.dynamixel.packet_fast import FastStatusParser, make_fast_sync_read

_STATUS_PREFIX = struct.Struct("<4sBHBB")  # header, id, LEN, STATUS, error byte 0
_CRC_BYTES = 2
_REFUSAL = 0xFF & ~ALERT_BIT  # the error number
_PATTERN = b"\xff\xff\xfd"  # this is stuffed, which makes the packet longer
_SIGNED_FORMAT = {1: "b", 2: "h", 4: "i"}


def _crc_of_words() -> array[int]:
    """The CRC of every pair of bytes, uint16 [65536], indexed by the pair as big endian."""
    of_byte = np.array([crc16(bytes((byte,))) for byte in range(256)], np.uint32)
    first, second = np.divmod(np.arange(1 << 16, dtype=np.uint32), 256)
    crc = of_byte[first]
    words = (crc << 8 & 0xFFFF) ^ of_byte[crc >> 8 ^ second]
    return array("H", words.astype(np.uint16).tobytes())


_CRC_OF_WORD = _crc_of_words()


def sync_read_request(address: int, size: int, ids: Sequence[int]) -> Request:
    """A sync read, to which each servo answers by a packet of its own."""
    prefixes = [_STATUS_PREFIX.pack(HEADER, servo_id, size + 4, STATUS, 0) for servo_id in ids]
    row_bytes = _STATUS_PREFIX.size + size + _CRC_BYTES
    expected = [(k * row_bytes, prefix, crc16(prefix)) for k, prefix in enumerate(prefixes)]
    words = struct.Struct(f">{size // 2}H")
    crc_at, answer_bytes = _STATUS_PREFIX.size + size, row_bytes * len(ids)
    table = _CRC_OF_WORD

    def clean(received: bytes) -> bool:
        if len(received) != answer_bytes or size % 2:
            return False
        for at, prefix, crc in expected:
            if not received.startswith(prefix, at):
                return False
            for word in words.unpack_from(received, at + _STATUS_PREFIX.size):
                crc = table[crc ^ word]
            if crc != received[at + crc_at] | received[at + crc_at + 1] << 8:
                return False
        return True

    return Request(
        packet=make_sync_read(address, size, ids),
        ids=tuple(ids),
        address=address,
        size=size,
        head_bytes=0,
        row_bytes=row_bytes,
        data_at=_STATUS_PREFIX.size,
        clean=clean,
        parser=StatusParser,
        refusal=_REFUSAL,
    )


def fast_read_request(address: int, size: int, ids: Sequence[int]) -> Request:
    """A fast sync read, to which all servos answer by one packet with a running CRC."""
    row_bytes = size + 4  # error byte, id, data, CRC
    head = HEADER + struct.pack("<BHB", BROADCAST_ID, row_bytes * len(ids) + 1, STATUS)
    answer_bytes = len(head) + row_bytes * len(ids)
    words = struct.Struct(f">{row_bytes // 2}H")
    ends_and_ids = [(len(head) + k * row_bytes, servo_id) for k, servo_id in enumerate(ids)]
    crc_of_head, table = crc16(head), _CRC_OF_WORD

    def clean(received: bytes) -> bool:
        if len(received) != answer_bytes or size % 2 or not received.startswith(head):
            return False
        crc = crc_of_head
        for at, servo_id in ends_and_ids:
            row = words.unpack_from(received, at)
            if row[0] != servo_id:  # its first byte is the error byte, 0
                return False
            for word in row[:-1]:
                crc = table[crc ^ word]
            if row[-1] != (crc & 0xFF) << 8 | crc >> 8:
                return False
            crc = table[crc ^ row[-1]]
        return True

    sizes = dict.fromkeys(ids, size)
    return Request(
        packet=make_fast_sync_read(address, size, ids),
        ids=tuple(ids),
        address=address,
        size=size,
        head_bytes=len(head),
        row_bytes=row_bytes,
        data_at=2,
        clean=clean,
        parser=lambda: FastStatusParser(sizes),
        refusal=_REFUSAL,
    )


class SyncWriter:
    """Builds the sync write packets for one register of `ids`."""

    def __init__(self, item: Item, ids: Sequence[int]) -> None:
        self._item = item
        self._ids = tuple(ids)
        sign = _SIGNED_FORMAT[item.size]
        self._blocks = struct.Struct(
            "<" + ("B" + (sign if item.signed else sign.upper())) * len(ids)
        )
        length = 1 + 4 + self._blocks.size + _CRC_BYTES
        self._head = HEADER + struct.pack(
            "<BHBHH", BROADCAST_ID, length, SYNC_WRITE, item.address, item.size
        )
        self._crc = crc16(self._head)
        self._words = struct.Struct(f">{self._blocks.size // 2}H")
        self._values = [value for servo_id in ids for value in (servo_id, 0)]

    def packet(self, raw: Sequence[int]) -> bytes:
        """The packet that writes `raw[k]` to `ids[k]`, for every k.

        Raises struct.error if a value does not fit, ValueError for a wrong number of values.
        """
        self._values[1::2] = raw
        blocks = self._blocks.pack(*self._values)
        if _PATTERN in blocks:
            item = self._item
            pairs = zip(self._ids, raw, strict=True)
            return make_sync_write(item.address, item.size, {i: item.pack(v) for i, v in pairs})
        crc, table = self._crc, _CRC_OF_WORD
        for word in self._words.unpack_from(blocks):
            crc = table[crc ^ word]
        if len(blocks) % 2:
            crc = crc16(blocks[-1:], crc)
        return self._head + blocks + crc.to_bytes(2, "little")
