"""Feetech STS/SMS and SCS packets as pure functions of bytes.

    FF FF | ID | LEN | INST | params ... | CHECKSUM      LEN = len(INST..CHECKSUM)

A status packet has an alarm byte in the place of INST. Nothing else tells it from an instruction.
Numbers in `params` are little endian on STS and SMS servos, and big endian on SCS servos. The
register tables know that (hw_drivers/feetech/models.py); the frame is the same.

Pitfalls: SCS servos and some STS firmware do not answer a sync read, and SCS servos do not answer a
broadcast ping. The alarm byte reports and never refuses: a servo silently clips or ignores a write
out of range.
Source: Feetech, "Communication Protocol User Manual" (FT-SCS protocol), and both vendor SDKs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

PING, READ, WRITE, REG_WRITE, ACTION = 0x01, 0x02, 0x03, 0x04, 0x05
SYNC_READ, SYNC_WRITE = 0x82, 0x83
REBOOT = 0x08  # INST_REBOOT of the vendor's FTServo SDK, INST.h of 2026; not in the manual

MAX_ID = 253
BROADCAST_ID = 0xFE
# Bits of a status packet's alarm byte: ERRBIT_* of protocol_packet_handler.py in the vendor's SDK.
ALARMS = {
    0: "input voltage",
    1: "position sensor",
    2: "overheating",
    3: "overcurrent",
    5: "overload",
}

HEADER = b"\xff\xff"
_HEAD_BYTES = 5  # FF FF ID LEN INST: enough to check a header
_LENGTH_OFFSET = 4  # LEN counts the bytes from here on
_MAX_LENGTH = 246  # in the vendor's SDK a packet has at most 250 bytes: TXPACKET_MAX_LEN

# Instruction -> least and largest LEN. A header with another length is noise.
_INSTRUCTION_LENGTHS = {
    PING: (2, 2),
    READ: (4, 4),
    WRITE: (4, _MAX_LENGTH),
    REG_WRITE: (4, _MAX_LENGTH),
    ACTION: (2, 2),
    REBOOT: (2, 2),
    SYNC_READ: (4, _MAX_LENGTH),
    SYNC_WRITE: (4, _MAX_LENGTH),
}


@dataclass(frozen=True, slots=True)
class Status:
    """A servo's answer. `error` is the alarm byte: its bits are the keys of ALARMS."""

    id: int
    error: int
    params: bytes


@dataclass(frozen=True, slots=True)
class Instruction:
    """A controller's request, as a servo receives it."""

    id: int
    code: int
    params: bytes


def checksum(body: bytes | bytearray) -> int:
    """The checksum of a packet whose bytes from ID to the last parameter are `body`."""
    return ~sum(body) & 0xFF


def make_packet(packet_id: int, code: int, params: bytes = b"") -> bytes:
    """Build a whole packet. Raises ValueError if it exceeds the vendor's 250 bytes."""
    if len(params) + 2 > _MAX_LENGTH:
        raise ValueError(
            f"a packet holds at most {_MAX_LENGTH - 2} bytes of params, got {len(params)}; "
            "address fewer servos at a time"
        )
    body = bytes((packet_id, len(params) + 2, code)) + params
    return HEADER + body + bytes((checksum(body),))


def make_ping(packet_id: int) -> bytes:
    """Ping: the servo answers without params."""
    return make_packet(packet_id, PING)


def make_read(packet_id: int, address: int, size: int) -> bytes:
    """Read `size` bytes from `address`."""
    return make_packet(packet_id, READ, bytes((address, size)))


def make_write(packet_id: int, address: int, data: bytes) -> bytes:
    """Write `data` at `address`."""
    return make_packet(packet_id, WRITE, bytes((address,)) + data)


def make_action(packet_id: int = BROADCAST_ID) -> bytes:
    """Carry out the registered writes, by default on all servos at once."""
    return make_packet(packet_id, ACTION)


def make_reboot(packet_id: int) -> bytes:
    """Restart the servo. It does not answer. Servos of older firmware may not know this."""
    return make_packet(packet_id, REBOOT)


def make_sync_read(address: int, size: int, ids: Sequence[int]) -> bytes:
    """Read `size` bytes from `address` of every servo in `ids`; they answer one after the other.

    SCS servos do not answer.
    """
    return make_packet(BROADCAST_ID, SYNC_READ, bytes((address, size, *ids)))


def make_sync_write(address: int, size: int, data: Mapping[int, bytes]) -> bytes:
    """Write `data[id]` (each `size` bytes) at `address` of every servo named; nobody answers.

    Raises ValueError if a block is not `size` bytes: the servos would cut the packet at the wrong
    places, and move to whatever the bytes there mean.
    """
    if any(len(block) != size for block in data.values()):
        raise ValueError(f"sync write: every block must be {size} bytes, got {dict(data)}")
    blocks = b"".join(bytes((packet_id,)) + block for packet_id, block in data.items())
    return make_packet(BROADCAST_ID, SYNC_WRITE, bytes((address, size)) + blocks)


def make_status(packet_id: int, error: int, params: bytes = b"") -> bytes:
    """Build a servo's answer. Only virtual servos send these."""
    return make_packet(packet_id, error, params)


def describe_alarms(error: int) -> str:
    """Describe an alarm byte, e.g. 'overheating, overload'; '' for 0."""
    return ", ".join(ALARMS.get(bit, f"unknown bit {bit}") for bit in range(8) if error >> bit & 1)


class _FrameCutter:
    """Cuts whole frames out of a byte stream that may hold noise and broken packets.

    `plausible(id, LEN, INST)` says whether a header can be real. Any split of the stream into
    `feed` calls gives the same frames, and no input raises.
    """

    def __init__(self, plausible: Callable[[int, int, int], bool]) -> None:
        self._plausible = plausible
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        buffer = self._buffer
        buffer += data
        frames: list[bytes] = []
        done = 0  # the bytes before this index are processed
        while (start := buffer.find(HEADER, done)) >= 0:
            done = start
            if len(buffer) < start + _HEAD_BYTES:
                break
            packet_id, length, code = buffer[start + len(HEADER) : start + _HEAD_BYTES]
            end = start + _LENGTH_OFFSET + length
            if not self._plausible(packet_id, length, code):
                done += 1  # not two: of FF FF FF the last two may be the header
            elif len(buffer) < end:
                break
            elif buffer[end - 1] != checksum(buffer[start + len(HEADER) : end - 1]):
                done += 1
            else:
                frames.append(bytes(buffer[start:end]))
                done = end
        if start < 0:  # the last byte may still be the beginning of a header
            done = max(done, len(buffer) - len(HEADER) + 1)
        del buffer[:done]
        return frames


class StatusParser:
    """Finds the answers to one request in the bytes from a port, which come in any pieces.

    All answers to one request have the same size: a read's `size`, otherwise 0. The parser skips
    packets of other sizes. So noise that imitates a header can't delay the packet behind it: the
    false packet would end before the true one.
    """

    def __init__(self, size: int, echo: bytes = b"") -> None:
        """`size`: bytes of params in each answer. `echo`: the request, if the adapter echoes it.

        An echoed ping would look like a servo with a voltage alarm. A sync read needs no `echo`: it
        carries the broadcast id.
        """
        self._cutter = _FrameCutter(lambda id_, length, _: id_ <= MAX_ID and length == size + 2)
        self._echo = echo

    def feed(self, data: bytes) -> list[Status]:
        """Add `data` to the stream. Returns the answers that it completes."""
        frames = self._cutter.feed(data)
        if self._echo in frames:
            frames.remove(self._echo)
            self._echo = b""
        return [Status(frame[2], frame[4], frame[5:-1]) for frame in frames]


class InstructionParser:
    """Finds instruction packets in a byte stream: the servo's counterpart of `StatusParser`."""

    def __init__(self) -> None:
        self._cutter = _FrameCutter(_plausible_instruction)

    def feed(self, data: bytes) -> list[Instruction]:
        """Add `data` to the stream. Returns the packets that it completes."""
        return [Instruction(frame[2], frame[4], frame[5:-1]) for frame in self._cutter.feed(data)]


def _plausible_instruction(packet_id: int, length: int, code: int) -> bool:
    least, largest = _INSTRUCTION_LENGTHS.get(code, (1, 0))
    return packet_id <= BROADCAST_ID and least <= length <= largest
