"""Fast sync read and fast bulk read: many servos share one answer packet.

    FF FF FD 00 | FE | LEN_L LEN_H | 55 | ERR ID data ... CRC | ERR ID data ... CRC | ...

Each servo adds its own part, with a CRC over all bytes before it. Nothing is stuffed. This saves
7 bytes and one turn-around for each servo.
Source: e-manual, https://emanual.robotis.com/docs/en/dxl/protocol2/, "Fast Sync Read (0x8A)".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence

from hw_drivers.dynamixel.packet import (
    BROADCAST_ID,
    FAST_SYNC_READ,
    HEADER,
    STATUS,
    Status,
    crc16,
    make_packet,
)

_CRC = struct.Struct("<H")
_PART_OVERHEAD = 4  # ERR, ID, CRC


def make_fast_sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """As `make_sync_read`, but the answer needs a `FastStatusParser`."""
    params = struct.pack("<HH", address, size) + bytes(ids)
    return make_packet(BROADCAST_ID, bytes((FAST_SYNC_READ,)) + params)


class FastStatusParser:
    """Finds the parts of the answer to one fast read in the bytes from a port.

    The request fixes the first eight bytes of the answer, and where each part lies. The parser
    returns a part as soon as its CRC is right, so a silent servo does not spoil the parts before
    it. A damaged part does not spoil the parts after it, unless its CRC itself is damaged.
    """

    def __init__(self, sizes: Mapping[int, int]) -> None:
        """`sizes`: id -> number of bytes requested, in the order of the request."""
        self._parts = tuple(sizes.items())
        length = sum(sizes.values()) + _PART_OVERHEAD * len(sizes) + 1
        self._head = HEADER + struct.pack("<BHB", BROADCAST_ID, length, STATUS)
        self._buffer = bytearray()
        self._restart()

    def _restart(self) -> None:
        """Look for the head of an answer."""
        self._next_part = -1  # -1: the head has not come yet
        self._at = 0  # in the buffer: where the next part begins
        self._crc = 0  # over all before it
        self._damaged = False

    def feed(self, data: bytes) -> list[Status]:
        """Add `data` to the stream. Returns the parts that it completes."""
        self._buffer += data
        parts: list[Status] = []
        while self._find_head() and self._part_is_there():
            if status := self._take_part():
                parts.append(status)
            if self._next_part == len(self._parts):
                # After damage, a whole answer may follow a cut-off one.
                del self._buffer[: len(self._head) if self._damaged else self._at]
                self._restart()
        return parts

    def _find_head(self) -> bool:
        if self._next_part >= 0:
            return True
        start = self._buffer.find(self._head)
        if start < 0:  # the last bytes may still be the beginning of one
            del self._buffer[: max(0, len(self._buffer) - len(self._head) + 1)]
            return False
        del self._buffer[:start]
        self._next_part, self._at, self._crc = 0, len(self._head), crc16(self._head)
        return True

    def _part_is_there(self) -> bool:
        size = self._parts[self._next_part][1]
        return len(self._buffer) >= self._at + size + _PART_OVERHEAD

    def _take_part(self) -> Status | None:
        """The next part; None if it is damaged.

        The running CRC continues from the received CRC, so that damage stays within its part.
        """
        servo_id, size = self._parts[self._next_part]
        end = self._at + 2 + size
        body = bytes(self._buffer[self._at : end])
        crc_bytes = bytes(self._buffer[end : end + _CRC.size])
        good = crc16(body, self._crc) == _CRC.unpack(crc_bytes)[0] and body[1] == servo_id
        self._crc = crc16(crc_bytes, _CRC.unpack(crc_bytes)[0])
        self._damaged |= not good
        self._at = end + _CRC.size
        self._next_part += 1
        return Status(servo_id, body[0], body[2:]) if good else None
