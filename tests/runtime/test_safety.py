"""Safety: denies by default; no input gets a command out of range or faster than allowed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.mailbox import Vector
from runtime.safety import Limits, Safety, State
from v2a.errors import SafetyFault

LIMITS = Limits(("base", "tip"), np.array([-1.0, 0.2]), np.array([1.0, 0.8]), np.array([1.0, 0.25]))
PERIOD_S = 0.02
INSIDE = np.array([0.0, 0.5])
weird = st.floats(allow_nan=True, allow_infinity=True)


def make_safety() -> Safety:
    return Safety(LIMITS, PERIOD_S, command_age_max_s=1.0, serial_faults_max=3)


def armed() -> Safety:
    safety = make_safety()
    safety.arm(0, INSIDE)
    return safety


@given(
    st.lists(st.tuples(weird, weird, st.integers(0, 3 * 10**9), st.booleans()), max_size=40),
    st.floats(-1, 1),
    st.floats(0.2, 0.8),
)
def test_no_command_leaves_the_range_or_exceeds_the_speed(
    inputs: list[tuple[float, float, int, bool]], base: float, tip: float
) -> None:
    safety = make_safety()
    safety.arm(0, np.array([base, tip]))
    for tick, (a, b, age_ns, current) in enumerate(inputs):
        now_ns = 10**10 + tick * 20_000_000
        before = safety.command_rad
        after = safety.command(now_ns, np.array([a, b]), now_ns - age_ns, current)
        assert np.all(after >= LIMITS.lower_rad)
        assert np.all(after <= LIMITS.upper_rad)
        assert np.all(np.abs(after - before) <= LIMITS.velocity_rad_s * PERIOD_S + 1e-12)


def test_a_fresh_one_denies() -> None:
    safety = make_safety()
    assert safety.state is State.DISARMED
    with pytest.raises(SafetyFault, match="arm first"):
        safety.command(0, INSIDE, 0, current=True)


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ([0.0, np.nan], "tip is at nan rad"),
        ([1.2, 0.5], "base is at 1.200 rad, outside -1.000..1.000"),
    ],
)
def test_arming_is_refused_where_the_joints_are_not_in_range(
    present: list[float], message: str
) -> None:
    safety = make_safety()
    with pytest.raises(SafetyFault, match=message):
        safety.arm(0, np.array(present))
    assert safety.state is State.DISARMED


def test_arming_on_an_end_stop_is_forgiven_and_commands_the_limit() -> None:
    safety = make_safety()
    safety.arm(0, np.array([1.03, 0.5]))
    assert safety.command_rad.tolist() == [1.0, 0.5]
    assert safety.state is State.HOLD


@pytest.mark.parametrize(
    ("target", "t_capture_ns", "current", "reason"),
    [
        ([np.nan, 0.5], 10**10, True, "target is not finite"),
        ([0.1, 0.5], 10**10 - 1_000_000_001, True, "target too old"),
        ([0.1, 0.5], 10**10, False, "target of an older epoch"),
    ],
)
def test_what_can_not_be_followed_is_held_with_its_reason(
    target: list[float], t_capture_ns: int, current: bool, reason: str
) -> None:
    safety = armed()
    safety.command(10**10, INSIDE + 0.001, 10**10, current=True)
    assert safety.state is State.ARMED
    before = safety.command_rad
    held: Vector = safety.command(10**10, np.array(target), t_capture_ns, current)
    np.testing.assert_array_equal(held, before)
    assert (safety.changes[-1].state, safety.changes[-1].reason) == (State.HOLD, reason)
    assert safety.counts[reason] == 1


def test_clamps_are_counted() -> None:
    safety = armed()
    safety.command(1, np.array([0.0, 0.9]), 1, current=True)
    assert safety.counts == {"limit_clamps": 1, "velocity_clamps": 1}
    safety.command(2, safety.command_rad, 2, current=True)
    assert safety.counts == {"limit_clamps": 1, "velocity_clamps": 1}


def test_bad_bus_cycles_in_a_row_are_a_fault_and_final() -> None:
    safety = armed()
    for fault in ("a", "b", None, "c", "d"):  # a good one starts the count anew
        safety.serial(1, fault)
    with pytest.raises(SafetyFault, match="3 bad bus cycles in a row, the last: e; check"):
        safety.serial(5, "e")
    assert (safety.state, safety.torque_on, safety.changes[-1].t_ns) == (State.FAULT, False, 5)
    safety.disarm(6, "end of the run")
    assert safety.state is State.FAULT
    with pytest.raises(SafetyFault, match="start anew"):
        safety.arm(7, INSIDE)
