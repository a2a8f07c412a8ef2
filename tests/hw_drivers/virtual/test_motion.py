"""Profiles: within their limits at every step, and at the goal in the end."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hw_drivers.virtual.motion import Limits, lag, timed, toward

DT_S = 0.005
positions = st.floats(-6.0, 6.0)


def run(start: float, goal: float, limits: Limits, steps: int) -> list[tuple[float, float]]:
    trace = [(start, 0.0)]
    for _ in range(steps):
        trace.append(toward(*trace[-1], goal, limits, DT_S))
    return trace


@settings(deadline=None)
@given(positions, positions, st.floats(1.0, 10.0), st.floats(5.0, 100.0))
def test_limits_hold_and_the_goal_is_reached(
    start: float, goal: float, velocity: float, acceleration: float
) -> None:
    needed_s = abs(goal - start) / velocity + velocity / acceleration
    needed_s += 2 * math.sqrt(abs(goal - start) / acceleration)
    trace = run(start, goal, Limits(velocity, acceleration), 20 + int(2 * needed_s / DT_S))
    low, high = min(start, goal), max(start, goal)
    for (before, _), (after, speed) in pairwise(trace):
        assert low <= after <= high  # no overshoot
        assert abs(speed) <= velocity * (1 + 1e-12)
        assert abs(after - before) <= velocity * DT_S * (1 + 1e-9)
    for (_, before), (at, after) in pairwise(trace):
        assert at == goal or abs(after - before) <= acceleration * DT_S * (1 + 1e-9)
    assert trace[-1] == (goal, 0.0)


def test_without_an_acceleration_it_goes_at_full_speed_at_once() -> None:
    assert toward(0.0, 0.0, 1.0, Limits(2.0), 0.1) == (0.2, 2.0)
    assert toward(0.0, 0.0, 0.1, Limits(2.0), 0.1) == (0.1, 0.0)
    assert toward(0.0, 0.0, 0.1, Limits(math.inf), 0.1) == (0.1, 0.0)


@settings(deadline=None)
@given(positions.filter(lambda goal: abs(goal) > 0.01), st.floats(0.2, 3.0), st.floats(0.0, 3.0))
def test_a_timed_profile_takes_its_time(goal: float, duration_s: float, ramp_s: float) -> None:
    limits = timed(abs(goal), duration_s, ramp_s)
    trace = run(0.0, goal, limits, int(2 * duration_s / DT_S))
    arrived_s = next(k for k, (at, _) in enumerate(trace) if at == goal) * DT_S
    assert arrived_s == pytest.approx(duration_s, rel=0.1, abs=0.06)


def test_no_time_means_at_once() -> None:
    assert timed(1.0, 0.0, 1.0) == Limits(math.inf)


@given(positions, positions, st.floats(0.0, 1.0))
def test_a_lag_does_not_depend_on_how_time_is_cut(start: float, goal: float, dt_s: float) -> None:
    whole = lag(start, goal, 0.02, dt_s)
    half = lag(lag(start, goal, 0.02, dt_s / 2), goal, 0.02, dt_s / 2)
    assert half == pytest.approx(whole, abs=1e-9)
