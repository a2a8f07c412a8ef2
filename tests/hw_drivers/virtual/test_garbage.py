"""Whatever comes over the wire: nothing raises, and nobody answers what nobody asked."""

from __future__ import annotations

import struct
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_drivers.dynamixel import models as dynamixel
from hw_drivers.dynamixel import packet as dynamixel_packet
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.feetech import models as feetech
from hw_drivers.feetech import packet as feetech_packet
from hw_drivers.feetech.virtual_bus import VirtualFeetechBus
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.virtual.bus import VirtualBus

AnyBus = VirtualBus[VirtualDynamixel] | VirtualBus[VirtualFeetech]


def dynamixel_line() -> AnyBus:
    models = dynamixel.TABLES
    return VirtualDynamixelBus(
        VirtualDynamixel(model, k) for k, model in enumerate(models, start=1)
    )


def feetech_line() -> AnyBus:
    models = feetech.MODELS.values()
    return VirtualFeetechBus(VirtualFeetech(model, k) for k, model in enumerate(models, start=1))


LINES = pytest.mark.parametrize("make_line", [dynamixel_line, feetech_line])
ids = st.one_of(st.integers(1, 3), st.sampled_from([0, 16, 252, 254]), st.integers(0, 255))

dynamixel_codes = st.one_of(
    st.sampled_from([1, 2, 3, 4, 5, 6, 8, 0x10, 0x82, 0x83, 0x8A, 0x92, 0x93, 0x9A]),
    st.integers(0, 255),
)
feetech_codes = st.one_of(st.sampled_from([1, 2, 3, 4, 5, 0x82, 0x83]), st.integers(0, 255))
# Params of a plausible shape: an address and a size, then ids or data.
shaped = st.builds(
    lambda address, size, rest: struct.pack("<HH", address, size) + rest,
    st.integers(0, 300),
    st.integers(0, 40),
    st.binary(max_size=40),
)
short_shaped = st.builds(
    lambda address, size, rest: bytes((address, size)) + rest,
    st.integers(0, 255),
    st.integers(0, 40),
    st.binary(max_size=40),
)
dynamixel_requests = st.builds(
    lambda servo_id, code, params: dynamixel_packet.make_packet(servo_id, bytes((code,)) + params),
    ids,
    dynamixel_codes,
    st.one_of(shaped, st.binary(max_size=60)),
)
feetech_requests = st.builds(
    feetech_packet.make_packet, ids, feetech_codes, st.one_of(short_shaped, st.binary(max_size=60))
)


@LINES
@settings(deadline=None)
@given(data=st.lists(st.binary(max_size=60), max_size=5))
def test_noise_is_not_answered(make_line: Callable[[], AnyBus], data: list[bytes]) -> None:
    line = make_line()
    # What holds a header may be a packet by chance.
    if not any(header in b"".join(data) for header in (b"\xff\xff\xfd\x00", b"\xff\xff")):
        assert [line.respond(piece) for piece in data] == [b""] * len(data)


@settings(deadline=None)
@given(st.lists(dynamixel_requests, max_size=8), st.floats(0.0, 1.0))
def test_no_dynamixel_request_raises(requests: list[bytes], dt_s: float) -> None:
    line = dynamixel_line()
    for request in requests:
        answered = dynamixel_packet.StatusParser().feed(line.respond(request))
        assert all(status.id <= dynamixel_packet.MAX_ID for status in answered)
        line.step(dt_s)
    assert all(servo.id == servo_id for servo_id, servo in line.servos.items())


@settings(deadline=None)
@given(st.lists(feetech_requests, max_size=8), st.floats(0.0, 1.0))
def test_no_feetech_request_raises(requests: list[bytes], dt_s: float) -> None:
    line = feetech_line()
    for request in requests:
        line.respond(request)
        line.step(dt_s)
    assert all(servo.id == servo_id for servo_id, servo in line.servos.items())


@settings(deadline=None)
@given(dynamixel_requests, st.data())
def test_a_dynamixel_request_with_a_flipped_bit_changes_nothing(
    request: bytes, data: st.DataObject
) -> None:
    line, bit = dynamixel_line(), data.draw(st.integers(0, len(request) * 8 - 1))
    before = [servo.read(0, 147) for servo in line.servos.values()]
    damaged = bytearray(request)
    damaged[bit // 8] ^= 1 << bit % 8
    assert line.respond(bytes(damaged)) == b""
    after = [servo.read(0, 147) for servo in line.servos.values()]
    assert before == after
