"""Fast reads against the e-manual's bytes, the vendor's SDK, and arbitrary streams."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import pairwise

import dynamixel_sdk
from dynamixel_sdk.protocol2_packet_handler import Protocol2PacketHandler
from hypothesis import assume, given
from hypothesis import strategies as st

from hw_drivers.dynamixel.packet import Status, crc16, make_status
from hw_drivers.dynamixel.packet_fast import (
    FastStatusParser,
    make_fast_sync_read,
)

# https://emanual.robotis.com/docs/en/dxl/protocol2/, the examples of "Fast Sync Read (0x8A)" and
# "Fast Bulk Read (0x9A)", read from servos 3, 7 and 4.
SYNC_REQUEST = bytes.fromhex("FFFFFD00 FE 0A00 8A 84000400 03 07 04 20F2")
SYNC_ANSWER = bytes.fromhex(
    "FFFFFD00 FE 1900 55 0003A60000008408 00071F08000016CA 0004FF030000D19E"
)
BULK_READ = {3: (132, 4), 7: (124, 2), 4: (146, 1)}
# The manual ends it with 20 F2, which is the CRC of the other example; the SDK agrees with us.
BULK_ANSWER = bytes.fromhex("FFFFFD00 FE 1400 55 0003A600000067A4 0007A5012474 00041FD9C1")

tricky_bytes = st.lists(
    st.one_of(st.sampled_from([0xFF, 0xFD, 0x00, 0xFE, 0x55]), st.integers(0, 255))
).map(bytes)
answers = st.dictionaries(
    st.integers(0, 252), st.tuples(st.integers(0, 255), tricky_bytes), min_size=1, max_size=5
).map(lambda parts: [Status(i, error, params) for i, (error, params) in parts.items()])
cuts = st.lists(st.integers(0, 1000))


def encode(parts: list[Status]) -> bytes:
    body = sum(len(part.params) + 4 for part in parts) + 1
    packet = b"\xff\xff\xfd\x00\xfe" + body.to_bytes(2, "little") + b"\x55"
    for part in parts:
        packet += bytes((part.error, part.id)) + part.params
        packet += crc16(packet).to_bytes(2, "little")
    return packet


def sizes(parts: Iterable[Status]) -> Mapping[int, int]:
    return {part.id: len(part.params) for part in parts}


def feed_in_pieces(parser: FastStatusParser, stream: bytes, cuts: list[int]) -> list[Status]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [status for a, b in pairwise(edges) for status in parser.feed(stream[a:b])]


def test_requests_are_the_manuals() -> None:
    assert make_fast_sync_read(132, 4, [3, 7, 4]) == SYNC_REQUEST


def test_answers_are_the_manuals() -> None:
    assert FastStatusParser(dict.fromkeys((3, 7, 4), 4)).feed(SYNC_ANSWER) == [
        Status(3, 0, b"\xa6\0\0\0"),
        Status(7, 0, b"\x1f\x08\0\0"),
        Status(4, 0, b"\xff\x03\0\0"),
    ]
    assert FastStatusParser({i: size for i, (_, size) in BULK_READ.items()}).feed(BULK_ANSWER) == [
        Status(3, 0, b"\xa6\0\0\0"),
        Status(7, 0, b"\xa5\x01"),
        Status(4, 0, b"\x1f"),
    ]


class SdkPort:
    """What the SDK asks of a port: keeps what is sent, hears `incoming`."""

    def __init__(self, incoming: bytes = b"") -> None:
        self.sent, self.incoming, self.is_using = b"", incoming, False

    def clearPort(self) -> None: ...  # noqa: N802 (the SDK's names, here and below)

    def setPacketTimeout(self, length: int) -> None: ...  # noqa: N802

    def isPacketTimeout(self) -> bool:  # noqa: N802
        return True

    def writePort(self, data: list[int]) -> int:  # noqa: N802
        self.sent += bytes(data)
        return len(data)

    def readPort(self, length: int) -> list[int]:  # noqa: N802
        data, self.incoming = self.incoming[:length], self.incoming[length:]
        return list(data)


@given(st.dictionaries(st.integers(0, 252), st.binary(min_size=4, max_size=4), min_size=1))
def test_the_sdk_sends_and_understands_the_same(data: dict[int, bytes]) -> None:
    parts = [Status(servo_id, 0, params) for servo_id, params in data.items()]
    port = SdkPort(encode(parts))
    read = dynamixel_sdk.GroupSyncRead(port, Protocol2PacketHandler(), 132, 4)
    for servo_id in data:
        read.addParam(servo_id)
    assert read.fastSyncRead() == dynamixel_sdk.COMM_SUCCESS
    heard = {servo_id: read.getData(servo_id, 132, 4) for servo_id in data}
    assert heard == {i: int.from_bytes(params, "little") for i, params in data.items()}
    assert port.sent == make_fast_sync_read(132, 4, list(data))


@given(answers, cuts)
def test_any_split_of_the_answer_gives_the_same_parts(parts: list[Status], cuts: list[int]) -> None:
    assert feed_in_pieces(FastStatusParser(sizes(parts)), encode(parts), cuts) == parts


@given(tricky_bytes, answers, cuts)
def test_noise_and_other_packets_before_do_not_lose_it(
    noise: bytes, parts: list[Status], cuts: list[int]
) -> None:
    echo = make_fast_sync_read(132, 4, [part.id for part in parts])
    stale = make_status(7, 0, b"\1\2\3\4")
    stream = echo + stale + noise + encode(parts)
    assert feed_in_pieces(FastStatusParser(sizes(parts)), stream, cuts) == parts


@given(answers, st.integers(1, 200), cuts)
def test_a_servo_that_falls_silent_leaves_those_before_it(
    parts: list[Status], missing: int, cuts: list[int]
) -> None:
    whole = encode(parts)
    cut = whole[: -min(missing, len(whole))]
    there = feed_in_pieces(FastStatusParser(sizes(parts)), cut, cuts)
    ends = [8 + sum(len(part.params) + 4 for part in parts[: k + 1]) for k in range(len(parts))]
    assert there == parts[: sum(end <= len(cut) for end in ends)]


@given(answers, st.integers(1, 200), cuts)
def test_a_cut_off_answer_does_not_lose_the_next(
    parts: list[Status], missing: int, cuts: list[int]
) -> None:
    whole = encode(parts)
    cut = whole[: -min(missing, len(whole))]
    # Where the checksum ends as an answer begins, in FF, the next one makes the cut one whole.
    assume(not (cut + whole).startswith(whole) or not cut)
    received = feed_in_pieces(FastStatusParser(sizes(parts)), cut + whole, cuts)
    assert received[-len(parts) :] == parts


@given(answers, st.data())
def test_a_damaged_part_leaves_the_others(parts: list[Status], data: st.DataObject) -> None:
    hit = data.draw(st.integers(0, len(parts) - 1))
    start = 8 + sum(len(part.params) + 4 for part in parts[:hit])
    bit = data.draw(st.integers(0, (len(parts[hit].params) + 2) * 8 - 1))  # not in its CRC
    damaged = bytearray(encode(parts))
    damaged[start + bit // 8] ^= 1 << bit % 8
    received = FastStatusParser(sizes(parts)).feed(bytes(damaged))
    assert received == parts[:hit] + parts[hit + 1 :]


@given(st.lists(st.binary()), answers)
def test_no_bytes_ever_raise_or_pile_up(feeds: list[bytes], parts: list[Status]) -> None:
    parser = FastStatusParser(sizes(parts))
    for data in feeds:
        parser.feed(data)
    assert len(parser._buffer) < len(encode(parts))
