"""Feetech packets against the manual's bytes, three independent programs, and arbitrary streams."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hw_drivers.dynamixel import packet as dynamixel
from hw_drivers.dynamixel.packet_fast import make_fast_sync_read
from hw_drivers.feetech import packet
from hw_drivers.feetech.packet import Instruction, InstructionParser, Status, StatusParser
from tests.conftest import REPOSITORY
from tools.record_peers import PEERS, record

RECORDED = json.loads(REPOSITORY.joinpath("tests/hw_drivers/peers.json").read_text())
FEETECH_SDKS = ("feetech-servo-sdk", "ftservo-python-sdk")

# Feetech, "Communication Protocol User Manual", the examples of 1.3.
GOAL = bytes.fromhex("00080000E803")  # position 2048, time 0, speed 1000


def reg_write(servo_id: int, address: int, data: bytes) -> bytes:
    """A write that waits for the action; the product sends none, the vendor's SDKs do."""
    return packet.make_packet(servo_id, packet.REG_WRITE, bytes((address,)) + data)


GOLDEN_INSTRUCTIONS = {
    "FFFF 01 02 01 FB": packet.make_ping(1),
    "FFFF 01 04 02 38 02 BE": packet.make_read(1, 0x38, 2),
    "FFFF FE 04 03 05 01 F4": packet.make_write(packet.BROADCAST_ID, 5, b"\x01"),
    "FFFF 01 09 03 2A 00080000E803 D5": packet.make_write(1, 0x2A, GOAL),
    "FFFF 01 09 04 2A 00080000E803 D4": reg_write(1, 0x2A, GOAL),
    "FFFF FE 02 05 FA": packet.make_action(),
    "FFFF FE 20 83 2A06 01 00080000E803 02 00080000E803 03 00080000E803 04 00080000E803 58": (
        packet.make_sync_write(0x2A, 6, dict.fromkeys((1, 2, 3, 4), GOAL))
    ),
    "FFFF FE 06 82 38 08 01 02 36": packet.make_sync_read(0x38, 8, [1, 2]),
}
GOLDEN_STATUSES = {
    "FFFF 01 02 00 FC": Status(1, 0, b""),
    "FFFF 01 04 00 1805 DD": Status(1, 0, b"\x18\x05"),
    "FFFF 01 0A 00 000800000000791E 55": Status(1, 0, bytes.fromhex("000800000000791E")),
    "FFFF 02 0A 00 FF07000000007723 53": Status(2, 0, bytes.fromhex("FF07000000007723")),
}

tricky_bytes = st.lists(
    st.one_of(st.sampled_from([0xFF, 0xFF, 0x01, 0x02, 0x04, 0x00]), st.integers(0, 255)),
    max_size=40,
).map(bytes)
ids = st.integers(0, packet.MAX_ID)
statuses = st.builds(Status, ids, st.integers(0, 127), st.binary(min_size=2, max_size=2))
cuts = st.lists(st.integers(0, 1000))
instructions = st.one_of(
    st.builds(packet.make_ping, ids),
    st.builds(packet.make_read, ids, st.integers(0, 255), st.integers(0, 255)),
    st.builds(packet.make_write, ids, st.integers(0, 255), st.binary(min_size=1, max_size=16)),
    st.builds(packet.make_sync_read, st.integers(0, 255), st.just(2), st.lists(ids, max_size=20)),
)


def encode(status: Status) -> bytes:
    return packet.make_status(status.id, status.error, status.params)


def pieces(stream: bytes, cuts: Iterable[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[a:b] for a, b in pairwise(edges)]


def feed(parser: StatusParser, stream: bytes, cuts: Iterable[int] = ()) -> list[Status]:
    return [status for piece in pieces(stream, cuts) for status in parser.feed(piece)]


def holds_a_packet_by_chance(stream: bytes, begin_before: int) -> bool:
    """Whether bytes that begin before that index are a sound answer of two bytes: the checksum is
    8 bits wide, so noise can be one. Written without the parser."""
    return any(
        stream[at : at + 2] == b"\xff\xff"
        and stream[at + 2] != 0xFF
        and stream[at + 3] == 4
        and (sum(stream[at + 2 : at + 8]) & 0xFF) == 0xFF
        for at in range(min(begin_before, len(stream) - 7))
    )


@pytest.mark.parametrize(("golden", "made"), GOLDEN_INSTRUCTIONS.items())
def test_instructions_are_the_manuals(golden: str, made: bytes) -> None:
    assert made == bytes.fromhex(golden)


@pytest.mark.parametrize(("golden", "status"), GOLDEN_STATUSES.items())
def test_statuses_are_the_manuals(golden: str, status: Status) -> None:
    assert StatusParser(len(status.params)).feed(bytes.fromhex(golden)) == [status]
    assert encode(status) == bytes.fromhex(golden)


def blocks(named: dict[str, str]) -> dict[int, bytes]:
    return {int(servo_id): bytes.fromhex(data) for servo_id, data in named.items()}


def makers(protocol: Any) -> dict[str, Callable[..., bytes]]:
    """Our functions by the names in the recording, taking what JSON can hold."""
    return {
        "ping": protocol.make_ping,
        "read": protocol.make_read,
        "write": lambda i, address, data: protocol.make_write(i, address, bytes.fromhex(data)),
        "sync_read": protocol.make_sync_read,
        "sync_write": lambda at, size, data: protocol.make_sync_write(at, size, blocks(data)),
        "fast_sync_read": make_fast_sync_read,
    }


@pytest.mark.parametrize("sdk", FEETECH_SDKS)
def test_requests_are_what_the_vendors_sdks_send(sdk: str) -> None:
    make = makers(packet) | {
        "reg_write": lambda i, at, data: reg_write(i, at, bytes.fromhex(data)),
        "action": packet.make_action,
    }
    assert {name for name, _, _ in RECORDED[sdk]["sent"]} == make.keys() - {"fast_sync_read"}
    for name, args, sent in RECORDED[sdk]["sent"]:
        assert make[name](*args).hex() == sent, (name, args)


@pytest.mark.parametrize("sdk", FEETECH_SDKS)
def test_the_vendors_sdks_understand_our_answers(sdk: str) -> None:
    for status, servo_id, error, data in RECORDED[sdk]["heard"]:
        heard = Status(servo_id, error, bytes.fromhex(data))
        assert encode(heard).hex() == status
        assert StatusParser(len(heard.params)).feed(bytes.fromhex(status)) == [heard]


@pytest.mark.parametrize("model", ["sts3215", "scs0009", "xl330-m288", "xl430-w250"])
def test_rustypot_sends_the_same_and_understands_our_answers(model: str) -> None:
    protocol: Any = dynamixel if model.startswith("x") else packet
    make = makers(protocol)
    for name, args, sent, reply, read in RECORDED["rustypot"][model]["exchanges"]:
        assert make[name](*args).hex() == sent, name
        if name == "sync_read":
            data = list(map(bytes, read))
            answers = (protocol.make_status(i, 0, d) for i, d in zip(args[2], data, strict=True))
            assert b"".join(answers).hex() == reply
        elif name == "read":
            assert protocol.make_status(7, 0, bytes(read)).hex() == reply


@pytest.mark.parametrize("peer", PEERS)
def test_the_recording_is_what_the_peer_does(peer: str) -> None:
    folder = Path(os.environ.get("V2A_PEERS", "nowhere"))
    if not (folder / peer).is_dir():
        pytest.skip(f"V2A_PEERS names no folder with {peer} in it: see record_peers.py")
    assert record(peer, folder) == RECORDED[peer]


@given(st.lists(statuses, max_size=5), cuts)
def test_any_split_of_the_stream_gives_the_same_packets(
    sent: list[Status], cuts: list[int]
) -> None:
    assert feed(StatusParser(2), b"".join(map(encode, sent)), cuts) == sent


@given(tricky_bytes, statuses, cuts)
def test_noise_before_a_packet_does_not_lose_it(
    noise: bytes, sent: Status, cuts: list[int]
) -> None:
    stream = noise + encode(sent)
    assume(not holds_a_packet_by_chance(stream, len(noise)))
    assert feed(StatusParser(2), stream, cuts) == [sent]


@given(statuses, st.integers(1, 7), statuses, cuts)
def test_a_truncated_packet_does_not_lose_the_next(
    first: Status, missing: int, second: Status, cuts: list[int]
) -> None:
    stream = encode(first)[:-missing] + encode(second)
    assume(not holds_a_packet_by_chance(stream, 8 - missing))
    assert feed(StatusParser(2), stream, cuts) == [second]


@given(statuses, statuses)
def test_an_answer_of_another_size_is_stale(stale: Status, sent: Status) -> None:
    fresh = Status(sent.id, sent.error, sent.params + b"\x55")
    assert StatusParser(3).feed(encode(stale) + encode(fresh)) == [fresh]


@given(ids, st.integers(0, 255), st.binary(min_size=2, max_size=2), cuts)
def test_the_echo_of_a_request_is_no_answer(
    servo_id: int, address: int, data: bytes, cuts: list[int]
) -> None:
    ping, pong = packet.make_ping(servo_id), Status(servo_id, 0, b"")
    assert feed(StatusParser(0, echo=ping), ping + encode(pong), cuts) == [pong]
    alarmed = Status(servo_id, 1, b"")  # the same bytes as the ping
    assert feed(StatusParser(0, echo=ping), ping + encode(alarmed), cuts) == [alarmed]
    assert feed(StatusParser(0), encode(alarmed), cuts) == [alarmed]
    read, answer = packet.make_read(servo_id, address, 2), Status(servo_id, 0, data)
    assert feed(StatusParser(2, echo=read), read + encode(answer), cuts) == [answer]
    everyone = packet.make_sync_read(address, 2, [servo_id])
    assert feed(StatusParser(2), everyone + encode(answer), cuts) == [answer]


@given(statuses, st.data())
def test_a_flipped_bit_is_never_taken_for_an_answer(sent: Status, data: st.DataObject) -> None:
    damaged = bytearray(encode(sent))
    bit = data.draw(st.integers(0, len(damaged) * 8 - 1))
    damaged[bit // 8] ^= 1 << bit % 8
    assert StatusParser(2).feed(bytes(damaged)) == []


@given(st.lists(st.one_of(tricky_bytes, st.binary())), st.integers(0, 20))
def test_no_bytes_ever_raise_or_pile_up(feeds: list[bytes], size: int) -> None:
    parsers = StatusParser(size), InstructionParser()
    for data in feeds:
        for parser in parsers:
            parser.feed(data)
            assert len(parser._cutter._buffer) <= 250


@given(st.lists(instructions, max_size=5), cuts)
def test_a_servo_hears_every_instruction(sent: list[bytes], cuts: list[int]) -> None:
    parser = InstructionParser()
    heard = [each for piece in pieces(b"".join(sent), cuts) for each in parser.feed(piece)]
    assert [packet.make_packet(each.id, each.code, each.params) for each in heard] == sent


def test_a_servo_hears_again_after_noise_that_promised_a_long_packet() -> None:
    parser, ping = InstructionParser(), packet.make_ping(1)
    parser.feed(b"\xff\xff\x01\xf6\x03")  # a write of 244 bytes, which never come
    heard = [each for _ in range(50) for each in parser.feed(ping)]
    assert heard == 50 * [Instruction(1, packet.PING, b"")]


def test_packets_that_servos_would_misread_are_refused() -> None:
    with pytest.raises(ValueError, match="must be 2 bytes"):
        packet.make_sync_write(42, 2, {1: b"\0\0", 2: b"\0"})
    with pytest.raises(ValueError, match="address fewer servos at a time"):
        packet.make_sync_write(42, 6, dict.fromkeys(range(40), bytes(6)))


def test_alarms_in_words() -> None:
    assert packet.describe_alarms(0b100100) == "overheating, overload"
    assert packet.describe_alarms(0b1000_0000) == "unknown bit 7"
    assert packet.describe_alarms(0) == ""
