"""Packets against the e-manual's bytes, the vendor's SDK, and arbitrary streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import pairwise
from typing import Any

import dynamixel_sdk
import pytest
from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
from hypothesis import assume, given
from hypothesis import strategies as st

from hw_drivers.dynamixel import packet
from hw_drivers.dynamixel.packet import Instruction, InstructionParser, Status, StatusParser

# https://emanual.robotis.com/docs/en/dxl/protocol2/, the examples of "Instruction Details".
GOLDEN_INSTRUCTIONS = {
    "FFFFFD00 01 0300 01 194E": packet.make_ping(1),
    "FFFFFD00 FE 0300 01 3142": packet.make_ping(packet.BROADCAST_ID),
    "FFFFFD00 01 0700 02 84000400 1D15": packet.make_read(1, 132, 4),
    "FFFFFD00 01 0900 03 7400 00020000 CA89": packet.make_write(1, 116, b"\x00\x02\x00\x00"),
    "FFFFFD00 01 0300 08 2F4E": packet.make_reboot(1),
    "FFFFFD00 FE 0900 82 84000400 01 02 CEFA": packet.make_sync_read(132, 4, [1, 2]),
    "FFFFFD00 FE 1100 83 74000400 01 96000000 02 AA000000 8287": packet.make_sync_write(
        116, 4, {1: b"\x96\0\0\0", 2: b"\xaa\0\0\0"}
    ),
}
GOLDEN_STATUSES = {
    "FFFFFD00 01 0700 55 00 060426 655D": Status(1, 0, b"\x06\x04\x26"),
    "FFFFFD00 02 0700 55 00 060426 6F6D": Status(2, 0, b"\x06\x04\x26"),
    "FFFFFD00 01 0800 55 00 A6000000 8CC0": Status(1, 0, b"\xa6\0\0\0"),
    "FFFFFD00 02 0800 55 00 1F080000 BABE": Status(2, 0, b"\x1f\x08\0\0"),
    "FFFFFD00 01 0400 55 00 A10C": Status(1, 0, b""),
    "FFFFFD00 01 0600 55 00 7700 C369": Status(1, 0, b"\x77\0"),
    "FFFFFD00 02 0500 55 00 24 8BA9": Status(2, 0, b"\x24"),
}

# Bytes of which headers and stuffing are made turn up often.
tricky_bytes = st.lists(
    st.one_of(st.sampled_from([0xFF, 0xFF, 0xFD, 0x00, 0x01, 0x55]), st.integers(0, 255))
).map(bytes)
# The SDK computes the stuffing but sends the packet without it (txPacket drops what addStuffing
# returns), so packets can only be compared where none is needed.
plain_bytes = tricky_bytes.filter(lambda data: b"\xff\xff\xfd" not in data)
statuses = st.builds(Status, st.integers(0, 252), st.integers(0, 255), tricky_bytes)


def encode(status: Status) -> bytes:
    return packet.make_status(status.id, status.error, status.params)


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


@pytest.mark.parametrize(("golden", "made"), GOLDEN_INSTRUCTIONS.items())
def test_instructions_are_the_manuals(golden: str, made: bytes) -> None:
    assert made == bytes.fromhex(golden)


@pytest.mark.parametrize(("golden", "status"), GOLDEN_STATUSES.items())
def test_statuses_are_the_manuals(golden: str, status: Status) -> None:
    assert StatusParser().feed(bytes.fromhex(golden)) == [status]
    assert encode(status) == bytes.fromhex(golden)


def test_crc_is_crc16_umts() -> None:
    assert packet.crc16(b"123456789") == 0xFEE8  # the check value of the CRC catalogue


@given(tricky_bytes)
def test_crc_is_the_sdks(data: bytes) -> None:
    assert packet.crc16(data) == Protocol2PacketHandler().updateCRC(0, data, len(data))


@given(tricky_bytes)
def test_stuffing_hides_every_header_and_comes_undone(body: bytes) -> None:
    assert packet.HEADER not in packet.stuff(body)
    assert packet.unstuff(packet.stuff(body)) == body


@given(tricky_bytes)
def test_stuffing_is_the_sdks(params: bytes) -> None:
    length = len(params) + 3
    plain = packet.HEADER + bytes((1, length & 0xFF, length >> 8, packet.WRITE)) + params + b"\0\0"
    stuffed = bytes(Protocol2PacketHandler().addStuffing(list(plain)))
    ours = packet.make_packet(1, bytes((packet.WRITE,)) + params)
    assert ours[:-2] == stuffed[:-2]  # both without the CRC, which the SDK adds later


class RecordingPort:
    """What the SDK asks of a port; keeps the bytes it would have sent."""

    def __init__(self) -> None:
        self.sent = b""
        self.is_using = False

    def clearPort(self) -> None:  # noqa: N802 (the SDK's name)
        pass

    def writePort(self, data: list[int]) -> int:  # noqa: N802 (the SDK's name)
        self.sent += bytes(data)
        return len(data)

    def setPacketTimeout(self, length: int) -> None:  # noqa: N802 (the SDK's name)
        pass

    def readPort(self, length: int) -> list[int]:  # noqa: N802 (the SDK's name)
        return []

    def isPacketTimeout(self) -> bool:  # noqa: N802 (the SDK's name)
        return True


def sent_by_sdk(send: Callable[[Any, RecordingPort], object]) -> bytes:
    port = RecordingPort()
    send(Protocol2PacketHandler(), port)
    return port.sent


@given(st.integers(0, 252), st.integers(0, 1000), st.integers(0, 1000))
def test_read_is_what_the_sdk_sends(servo_id: int, address: int, size: int) -> None:
    sdk = sent_by_sdk(lambda sdk, port: sdk.readTx(port, servo_id, address, size))
    assert packet.make_read(servo_id, address, size) == sdk


@given(st.integers(0, 252), st.integers(0, 1000), plain_bytes)
def test_write_is_what_the_sdk_sends(servo_id: int, address: int, data: bytes) -> None:
    sdk = sent_by_sdk(
        lambda sdk, port: sdk.writeTxOnly(port, servo_id, address, len(data), list(data))
    )
    assert packet.make_write(servo_id, address, data) == sdk


@given(st.dictionaries(st.integers(0, 252), st.integers(0, 4095), min_size=1))
def test_sync_packets_are_what_the_sdk_sends(ticks: dict[int, int]) -> None:
    goals = {servo_id: tick.to_bytes(4, "little") for servo_id, tick in ticks.items()}
    port, sdk = RecordingPort(), Protocol2PacketHandler()
    write = dynamixel_sdk.GroupSyncWrite(port, sdk, 116, 4)
    read = dynamixel_sdk.GroupSyncRead(port, sdk, 132, 4)
    for servo_id, data in goals.items():
        write.addParam(servo_id, list(data))
        read.addParam(servo_id)
    write.txPacket()
    read.txPacket()
    ours = packet.make_sync_write(116, 4, goals) + packet.make_sync_read(132, 4, list(goals))
    assert ours == port.sent


@given(st.integers(0, 252))
def test_other_requests_are_what_the_sdk_sends(servo_id: int) -> None:
    def send(sdk: Any, port: RecordingPort) -> None:
        for method in ("ping", "reboot"):
            getattr(sdk, method)(port, servo_id)

    assert sent_by_sdk(send) == packet.make_ping(servo_id) + packet.make_reboot(servo_id)


def test_sync_write_refuses_blocks_of_unequal_size() -> None:
    with pytest.raises(ValueError, match="must be 4 bytes"):
        packet.make_sync_write(116, 4, {1: b"\0\0\0\0", 2: b"\0\0"})


@given(st.lists(statuses, max_size=5), st.lists(st.integers(0, 1000)))
def test_any_split_of_the_stream_gives_the_same_packets(
    sent: list[Status], cuts: list[int]
) -> None:
    parser = StatusParser()
    stream = b"".join(map(encode, sent))
    assert [status for piece in pieces(stream, cuts) for status in parser.feed(piece)] == sent


@given(tricky_bytes, statuses, st.lists(st.integers(0, 1000)))
def test_noise_before_a_packet_does_not_lose_it(
    noise: bytes, sent: Status, cuts: list[int]
) -> None:
    parser = StatusParser()
    parser_of_whole = StatusParser()
    stream = noise + encode(sent)
    received = [status for piece in pieces(stream, cuts) for status in parser.feed(piece)]
    assert received[-1] == sent
    assert received == parser_of_whole.feed(stream)


@given(statuses, st.integers(1, 100), statuses)
def test_a_truncated_packet_does_not_lose_the_next(
    first: Status, missing: int, second: Status
) -> None:
    whole = encode(first)
    cut = whole[: -min(missing, len(whole))]
    # Where the checksum ends as a packet begins, in FF, the next one makes the cut one whole.
    assume(not (cut + encode(second)).startswith(whole))
    assert StatusParser().feed(cut + encode(second))[-1:] == [second]


def test_a_header_that_promises_too_much_does_not_hold_up_the_next_packet() -> None:
    lost_its_body = packet.HEADER + b"\x01\xff\x03\x55"
    sent = Status(2, 0, b"\x1f\x08\0\0")
    assert StatusParser().feed(lost_its_body + encode(sent)) == [sent]


def test_the_end_of_a_packet_is_not_the_beginning_of_the_next() -> None:
    ends_in_ff = next(
        status
        for number in range(65536)
        if encode(status := Status(1, 0, number.to_bytes(2, "little")))[-1] == 0xFF
    )
    lost_its_first_byte = encode(Status(2, 0, b""))[1:]
    parser = StatusParser()
    assert parser.feed(encode(ends_in_ff)) == [ends_in_ff]
    assert parser.feed(lost_its_first_byte) == []
    assert StatusParser().feed(encode(ends_in_ff) + lost_its_first_byte) == [ends_in_ff]


@given(statuses, st.data())
def test_a_flipped_bit_is_never_taken_for_an_answer(sent: Status, data: st.DataObject) -> None:
    damaged = bytearray(encode(sent))
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    assert StatusParser().feed(bytes(damaged)) == []


@given(st.lists(st.one_of(tricky_bytes, st.binary())))
def test_no_bytes_ever_raise(feeds: list[bytes]) -> None:
    statuses_, instructions = StatusParser(), InstructionParser()
    for data in feeds:
        statuses_.feed(data)
        instructions.feed(data)
    # Whatever came before, at most one packet's length of what follows is lost.
    sent = Status(1, 0, b"")
    assert statuses_.feed(encode(sent) * 300)[-1] == sent


def test_each_side_skips_the_packets_of_the_other() -> None:
    stream = packet.make_ping(1) + packet.make_status(1, 0, b"\x24\x04\x2e")
    assert StatusParser().feed(stream) == [Status(1, 0, b"\x24\x04\x2e")]
    assert InstructionParser().feed(stream) == [Instruction(1, packet.PING, b"")]


def test_an_endless_stream_of_noise_is_not_kept() -> None:
    parser = StatusParser()
    for _ in range(100):
        parser.feed(b"\xff\xff\xfd\x00\x01\xff\x03" + bytes(1000))
    assert len(parser._cutter._buffer) < 2100
