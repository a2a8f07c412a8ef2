"""Dynamixel Protocol 2.0 packets as pure functions of bytes.

    FF FF FD 00 | ID | LEN_L LEN_H | INST | params ... | CRC_L CRC_H      LEN = len(INST..CRC)

A status packet has INST = 0x55 and an error byte before its params.
Source: e-manual, https://emanual.robotis.com/docs/en/dxl/protocol2/
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

PING, READ, WRITE, REG_WRITE, ACTION, FACTORY_RESET = 0x01, 0x02, 0x03, 0x04, 0x05, 0x06
REBOOT, CLEAR, STATUS = 0x08, 0x10, 0x55
SYNC_READ, SYNC_WRITE, FAST_SYNC_READ = 0x82, 0x83, 0x8A
BULK_READ, BULK_WRITE, FAST_BULK_READ = 0x92, 0x93, 0x9A

MAX_ID = 252
BROADCAST_ID = 0xFE
ALERT_BIT = 0x80  # of the error byte: the servo has a hardware error, register 70 says which
ERROR_NUMBERS = {
    0: "no error",
    1: "result fail",
    2: "instruction error",
    3: "CRC error",
    4: "data range error",
    5: "data length error",
    6: "data limit error",
    7: "access error",
}

# The fourth byte is "reserved": always 00, never FD. So a stuffed FF FF FD FD inside a packet can't
# be taken for a header.
HEADER = b"\xff\xff\xfd\x00"
_PATTERN, _STUFFED = b"\xff\xff\xfd", b"\xff\xff\xfd\xfd"
_ID_LENGTH = struct.Struct("<BH")
_CRC = struct.Struct("<H")
_BODY_OFFSET = len(HEADER) + _ID_LENGTH.size
_MIN_LENGTH = 3
_MAX_LENGTH = 1024  # as in the vendor's SDK: RXPACKET_MAX_LEN, protocol2_packet_handler.py


def _crc_table_entry(byte: int) -> int:
    crc = byte << 8
    for _ in range(8):
        crc = (crc << 1) ^ (0x8005 if crc & 0x8000 else 0)
    return crc & 0xFFFF


_CRC_TABLE = tuple(_crc_table_entry(byte) for byte in range(256))


def crc16(data: bytes | bytearray, crc: int = 0) -> int:
    """CRC-16 of `data`: polynomial 0x8005, initial value 0, not reflected (CRC-16/UMTS).

    `crc` is the CRC of the bytes before `data`.
    """
    for byte in data:
        crc = ((crc & 0xFF) << 8) ^ _CRC_TABLE[(crc >> 8) ^ byte]
    return crc


def stuff(body: bytes) -> bytes:
    """Insert FD after every FF FF FD, so that a body (INST..params) never contains a header."""
    return body.replace(_PATTERN, _STUFFED)


def unstuff(body: bytes) -> bytes:
    """Undo `stuff`."""
    return body.replace(_STUFFED, _PATTERN)


def make_packet(packet_id: int, body: bytes) -> bytes:
    """Build a whole packet from its unstuffed body (INST..params)."""
    body = stuff(body)
    packet = HEADER + _ID_LENGTH.pack(packet_id, len(body) + _CRC.size) + body
    return packet + _CRC.pack(crc16(packet))


def make_ping(packet_id: int) -> bytes:
    """Ping: the servo answers model number (uint16) and firmware version (uint8)."""
    return make_packet(packet_id, bytes((PING,)))


def make_read(packet_id: int, address: int, size: int) -> bytes:
    """Read `size` bytes from `address`."""
    return make_packet(packet_id, struct.pack("<BHH", READ, address, size))


def make_write(packet_id: int, address: int, data: bytes) -> bytes:
    """Write `data` at `address`."""
    return make_packet(packet_id, struct.pack("<BH", WRITE, address) + data)


def make_reboot(packet_id: int) -> bytes:
    """Reboot the servo, which is the only way to clear a latched hardware error."""
    return make_packet(packet_id, bytes((REBOOT,)))


def make_sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """Read `size` bytes from `address` of every servo in `ids`; they answer one after the other."""
    return make_packet(BROADCAST_ID, struct.pack("<BHH", SYNC_READ, address, size) + bytes(ids))


def make_sync_write(address: int, size: int, data: Mapping[int, bytes]) -> bytes:
    """Write `data[id]` (each `size` bytes) at `address` of every servo named; nobody answers.

    Raises ValueError if a block is not `size` bytes: the servos would cut the packet at the wrong
    places, and move to whatever the bytes there mean.
    """
    if any(len(block) != size for block in data.values()):
        raise ValueError(f"sync write: every block must be {size} bytes, got {dict(data)}")
    blocks = b"".join(bytes((packet_id,)) + block for packet_id, block in data.items())
    return make_packet(BROADCAST_ID, struct.pack("<BHH", SYNC_WRITE, address, size) + blocks)


def make_status(packet_id: int, error: int, params: bytes = b"") -> bytes:
    """Build a servo's answer. Only virtual servos send these."""
    return make_packet(packet_id, bytes((STATUS, error)) + params)


@dataclass(frozen=True, slots=True)
class Status:
    """A servo's answer. `error` is the whole error byte: alert bit plus error number."""

    id: int
    error: int
    params: bytes


@dataclass(frozen=True, slots=True)
class Instruction:
    """A controller's request, as a servo receives it."""

    id: int
    code: int
    params: bytes


class _FrameCutter:
    """Cuts (id, unstuffed body) out of a byte stream that may hold noise and broken packets.

    Any split of the stream into `feed` calls gives the same frames, and no input raises.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        buffer = self._buffer
        buffer += data
        frames: list[tuple[int, bytes]] = []
        done = 0  # the bytes before this index are processed
        while (start := buffer.find(HEADER, done)) >= 0:
            done = start
            if len(buffer) < start + _BODY_OFFSET:
                break
            packet_id, length = _ID_LENGTH.unpack_from(buffer, start + len(HEADER))
            body_start, end = start + _BODY_OFFSET, start + _BODY_OFFSET + length
            crc_start = end - _CRC.size
            if not self._plausible(packet_id, length, body_start, crc_start):
                done += len(HEADER)
            elif len(buffer) < end:
                break
            elif _CRC.unpack_from(buffer, crc_start)[0] != crc16(buffer[start:crc_start]):
                done += len(HEADER)
            else:
                frames.append((packet_id, unstuff(bytes(buffer[body_start:crc_start]))))
                done = end
        if start < 0:  # the last bytes may still be the beginning of a header
            done = max(done, len(buffer) - len(HEADER) + 1)
        del buffer[:done]
        return frames

    def _plausible(self, packet_id: int, length: int, body_start: int, body_end: int) -> bool:
        """Whether this header can belong to a packet.

        Stuffing forbids a second header in the body. One there means that this header is noise, or
        that its packet lost bytes.
        """
        return (
            (packet_id <= MAX_ID or packet_id == BROADCAST_ID)
            and _MIN_LENGTH <= length <= _MAX_LENGTH
            and self._buffer.find(HEADER, body_start, body_end) < 0
        )


class StatusParser:
    """Finds status packets in the bytes from a port, which come in any pieces.

    It skips instructions (the local echo of half-duplex adapters), noise and broken packets.
    """

    def __init__(self) -> None:
        self._cutter = _FrameCutter()

    def feed(self, data: bytes) -> list[Status]:
        """Add `data` to the stream. Returns the packets that it completes."""
        return [
            Status(packet_id, body[1], body[2:])
            for packet_id, body in self._cutter.feed(data)
            if body[0] == STATUS and len(body) >= 2
        ]


class InstructionParser:
    """Finds instruction packets in a byte stream: the servo's counterpart of `StatusParser`."""

    def __init__(self) -> None:
        self._cutter = _FrameCutter()

    def feed(self, data: bytes) -> list[Instruction]:
        """Add `data` to the stream. Returns the packets that it completes."""
        return [
            Instruction(packet_id, body[0], body[1:])
            for packet_id, body in self._cutter.feed(data)
            if body[0] != STATUS
        ]
