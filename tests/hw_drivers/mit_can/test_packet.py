"""MIT-mode motor frames and slcan lines against independent programs and arbitrary streams."""

from __future__ import annotations

import json
import math
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.mit_can import packet, slcan
from hw_drivers.mit_can.packet import MODELS, Ranges
from hw_drivers.mit_can.slcan import CanFrame, FrameParser
from tests.conftest import REPOSITORY

RECORDED = json.loads(REPOSITORY.joinpath("tests/hw_drivers/peers.json").read_text())
DAMIAO, PYTHON_CAN = RECORDED["damiao-motor"], RECORDED["python-can"]
DM4310 = MODELS["dm4310"]

can_frames = st.booleans().flatmap(
    lambda extended: st.builds(
        CanFrame,
        st.integers(0, (1 << (29 if extended else 11)) - 1),
        st.binary(max_size=8),
        st.just(extended),
    )
)
noise = st.one_of(
    st.binary(max_size=60), st.text("tT0123456789ABCDEF\r\az", max_size=60).map(str.encode)
)


@pytest.mark.parametrize("name", MODELS)
def test_ranges_are_damiao_motors(name: str) -> None:
    ranges = MODELS[name]
    assert [ranges.position_rad, ranges.velocity_rad_s, ranges.torque_nm] == DAMIAO["ranges"][
        name.removeprefix("dm")
    ]


@pytest.mark.parametrize("name", MODELS)
def test_commands_are_what_damiao_motor_sends(name: str) -> None:
    for args, data in DAMIAO[name.removeprefix("dm")]["commands"]:
        assert packet.make_command(MODELS[name], *args).hex() == data


@pytest.mark.parametrize("name", MODELS)
def test_feedback_is_what_damiao_motor_reads(name: str) -> None:
    for data, theirs in DAMIAO[name.removeprefix("dm")]["feedback"]:
        ours = packet.parse_feedback(MODELS[name], bytes.fromhex(data))
        assert ours
        assert (ours.motor_id, ours.state) == (theirs["can_id"], theirs["status_code"])
        assert (ours.mosfet_degc, ours.rotor_degc) == (theirs["t_mos"], theirs["t_rotor"])
        assert ours.position_rad == pytest.approx(theirs["pos"])
        assert ours.velocity_rad_s == pytest.approx(theirs["vel"])
        assert ours.torque_nm == pytest.approx(theirs["torq"])
        assert (ours.state in packet.STATES) == (not theirs["status"].startswith("UNKNOWN"))


@pytest.mark.parametrize("name", DAMIAO["special"])
def test_special_frames_are_damiao_motors(name: str) -> None:
    assert getattr(packet, f"make_{name}")().hex() == DAMIAO["special"][name]


def test_refresh_names_the_motor_low_byte_first() -> None:
    assert packet.make_refresh(0x123) == (0x7FF, bytes.fromhex("2301CC0000000000"))


@given(st.floats(-1, 1), st.floats(-1, 1), st.floats(0, 1), st.floats(0, 1), st.floats(-1, 1))
def test_a_motor_that_obeys_reports_the_command(
    position: float, velocity: float, kp: float, kd: float, torque: float
) -> None:
    ranges = Ranges(12.5, 30.0, 10.0)
    command = packet.make_command(
        ranges, position * 12.5, velocity * 30, kp * 500, kd * 5, torque * 10
    )
    # Position and velocity lie in a feedback frame as in a command, one byte further on.
    tail = bytes((command[3] & 0xF0 | command[6] & 0xF, command[7]))
    feedback = packet.parse_feedback(ranges, b"\x11" + command[:3] + tail + b"\x20\x21")
    assert feedback
    assert feedback.position_rad == pytest.approx(position * 12.5, abs=25 / 65535)
    assert feedback.velocity_rad_s == pytest.approx(velocity * 30, abs=60 / 4095)
    assert feedback.torque_nm == pytest.approx(torque * 10, abs=20 / 4095)


@pytest.mark.parametrize("field", range(5))
@pytest.mark.parametrize("value", [math.nan, math.inf, -1e3, 1e3])
def test_what_does_not_fit_is_refused(field: int, value: float) -> None:
    args = [0.0] * 5
    args[field] = value
    with pytest.raises(ValueError, match=r"must be from .* to .*, got .*; limit it before"):
        packet.make_command(DM4310, *args)


@given(st.binary())
def test_no_data_raises(data: bytes) -> None:
    assert (packet.parse_feedback(DM4310, data) is None) == (len(data) != 8)


def test_lines_are_python_cans() -> None:
    for (id_, data, extended, line), heard in zip(
        PYTHON_CAN["sent"], PYTHON_CAN["heard"], strict=True
    ):
        frame = CanFrame(id_, bytes.fromhex(data), extended)
        assert slcan.make_frame(frame).hex() == line
        assert [frame.id, frame.data.hex(), frame.extended] == heard
        assert FrameParser().feed(bytes.fromhex(line)) == [frame]


def test_open_sets_the_bit_rate_of_a_closed_adapter() -> None:
    assert slcan.make_open(500_000) == b"C\rS6\rO\r"
    assert slcan.make_close() == b"C\r"
    with pytest.raises(ValueError, match="has no 800000 bit/s; take one of"):
        slcan.make_open(800_000)


@given(noise, st.lists(can_frames, max_size=5), st.lists(st.integers(0, 1000)))
def test_frames_survive_noise_and_any_split(
    noise: bytes, sent: list[CanFrame], cuts: list[int]
) -> None:
    stream = noise + b"".join(b"z\r" + slcan.make_frame(frame) for frame in sent)
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    parser = FrameParser()
    received = [frame for a, b in pairwise(edges) for frame in parser.feed(stream[a:b])]
    by_chance = FrameParser().feed(noise + b"z\r")
    assert received == by_chance + sent


@given(st.binary(), can_frames, st.integers(1, 8), can_frames)
def test_a_truncated_line_does_not_lose_the_next(
    noise: bytes, first: CanFrame, missing: int, second: CanFrame
) -> None:
    cut = slcan.make_frame(first)[: -1 - missing]
    assert FrameParser().feed(noise + b"\r" + cut + slcan.make_frame(second))[-1] == second


def test_a_refusal_is_counted_and_ends_the_line() -> None:
    parser, frame = FrameParser(), CanFrame(0x11, b"\x01")
    assert parser.feed(b"t01110\a" + slcan.make_frame(frame)) == [frame]
    assert parser.refused == 1


@pytest.mark.parametrize(
    "frame",
    [CanFrame(0x800, b""), CanFrame(-1, b""), CanFrame(1 << 29, b"", True), CanFrame(1, bytes(9))],
)
def test_what_is_no_can_frame_is_refused(frame: CanFrame) -> None:
    with pytest.raises(ValueError, match="not a CAN frame"):
        slcan.make_frame(frame)


@given(st.lists(st.binary()))
def test_the_line_buffer_stays_short(feeds: list[Any]) -> None:
    parser = FrameParser()
    for data in feeds:
        parser.feed(data)
    assert len(parser._line) <= 26
