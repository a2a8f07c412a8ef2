"""A swept range, placed in one turn: against the virtual servos' own arithmetic."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.dynamixel.models import MODELS as DYNAMIXELS
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.family import load_family
from hw_drivers.feetech.models import MODELS as FEETECHS
from hw_drivers.feetech.virtual_servo import VirtualFeetech
from hw_drivers.motors.joint_range import LEAST_SPAN_TICKS, Sweep, place_range
from hw_drivers.virtual.servo import VirtualServo
from v2a.errors import BusError

TURN = 4096
DYNAMIXEL, FEETECH = load_family("dynamixel2"), load_family("feetech")
STS, XL330, SCS = FEETECHS["sts3215"], DYNAMIXELS["xl330-m288"], FEETECHS["scs0009"]
STEP = 100  # ticks that a hand moves a joint from one reading to the next

angles = st.integers(-3 * TURN, 3 * TURN)
spans = st.integers(LEAST_SPAN_TICKS, TURN - 3)


def sweep_of(servo: VirtualServo, low: int, high: int) -> Sweep:
    """Moved from the middle to one end, to the other, and back; in ticks of the encoder."""
    middle = (low + high) // 2
    path = [*range(middle, low, -STEP), *range(low, high, STEP), *range(high, middle, -STEP)]
    sweep = Sweep.begin(TURN, position(servo, middle))
    for tick in path:
        sweep.add(position(servo, tick))
    return sweep


def position(servo: VirtualServo, tick: int) -> int:
    servo.set_present_rad((tick - TURN // 2) * servo.model.items["present_position"].scale)
    return servo["present_position"]


def set_offset(servo: VirtualFeetech, offset: int) -> None:
    servo.write(55, b"\0")
    servo.write(31, STS.items["homing_offset"].pack(offset))


@given(low=angles, span=spans, offset=st.integers(-2047, 2047))
def test_feetech_the_offset_keeps_the_seam_out_wherever_it_was(
    low: int, span: int, offset: int
) -> None:
    servo = VirtualFeetech(STS, 1)
    set_offset(servo, offset)
    before = position(servo, low)
    found = place_range(STS, FEETECH, sweep_of(servo, low, low + span), offset)
    assert found.homing_offset is not None
    set_offset(servo, found.homing_offset)
    ticks = [position(servo, tick) for tick in (*range(low, low + span, STEP), low + span)]
    assert ticks == sorted(ticks)  # no jump of a turn
    assert (ticks[0], ticks[-1]) == (found.low, found.high)
    assert 0 <= found.low < found.high < TURN
    assert (before + found.shift - ticks[0]) % TURN == 0
    # as far from the seam on one side as on the other
    assert abs(found.low - (TURN - 1 - found.high)) <= 2


@given(low=angles, span=spans, offset=st.integers(-1024, 1024))
def test_dynamixel_the_range_has_no_seam_in_it_or_is_refused(
    low: int, span: int, offset: int
) -> None:
    servo = VirtualDynamixel(XL330, 1)
    assert servo.write(20, XL330.items["homing_offset"].pack(offset)) == 0
    sweep = sweep_of(servo, low, low + span)
    if low // TURN != (low + span) // TURN:
        with pytest.raises(BusError, match=r"the encoder's seam lies in its range, \d+ ticks from"):
            place_range(XL330, DYNAMIXEL, sweep, offset)
    else:
        found = place_range(XL330, DYNAMIXEL, sweep, offset)
        assert (found.homing_offset, found.low, found.high) == (0, low % TURN, low % TURN + span)
        assert found.shift == found.low - sweep.low


@given(low=angles, span=st.integers(TURN, 3 * TURN))
def test_a_turn_or_more_is_refused(low: int, span: int) -> None:
    for family, model in ((FEETECH, STS), (DYNAMIXEL, XL330)):
        servo = family.virtual_servo(model, 1)
        with pytest.raises(BusError, match=f"its range is {span} ticks, a turn has 4096"):
            place_range(servo.model, family, sweep_of(servo, low, low + span), 0)


def test_the_largest_range_is_a_tick_short_of_a_turn() -> None:
    servo = VirtualDynamixel(XL330, 1)
    found = place_range(XL330, DYNAMIXEL, sweep_of(servo, 0, TURN - 1), 0)
    assert (found.low, found.high) == (0, TURN - 1)


def test_a_joint_that_nobody_moved_is_refused() -> None:
    sweep = Sweep.begin(TURN, 2000)
    sweep.add(2003)
    with pytest.raises(BusError, match="moved by 3 ticks only"):
        place_range(XL330, DYNAMIXEL, sweep, 0)


def test_a_potentiometer_has_no_offset() -> None:
    sweep = Sweep.begin(1024, 300)
    for raw in range(300, 901, 50):
        sweep.add(raw)
    found = place_range(SCS, FEETECH, sweep, 0)
    assert (found.homing_offset, found.low, found.high, found.shift) == (None, 300, 900, 0)


def test_a_leap_is_refused() -> None:
    sweep = Sweep.begin(TURN, 0)
    with pytest.raises(BusError, match="moved 2000 ticks between two readings"):
        sweep.add(2000)
