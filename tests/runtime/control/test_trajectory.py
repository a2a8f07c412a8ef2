"""Chunks in time: exact at steps, never back in time, no leap at a seam, gently to rest."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from runtime.config.robot_yaml import ControlConfig
from runtime.config.safety_yaml import SafetyConfig
from runtime.control.trajectory import REST_NS, ChunkPlan, Trajectory
from runtime.mailbox import ChunkMsg, Vector
from runtime.safety.motion_limiter import Limits
from runtime.safety.safety import Safety

STEP_NS = 50_000_000
PERIOD_NS = 20_000_000
chunks = arrays(np.float64, (6, 2), elements=st.floats(-1, 1))


def chunk(seq: int, t_capture_ns: int, target_rad: Vector) -> ChunkMsg:
    return ChunkMsg(seq, t_capture_ns, t_capture_ns, 0, 0, target_rad, STEP_NS, 0)


@given(chunks, st.integers(0, 5), st.integers(0, 10**12))
def test_exact_at_every_step(target_rad: Vector, k: int, start_ns: int) -> None:
    plan = ChunkPlan(start_ns, STEP_NS, target_rad)
    np.testing.assert_array_equal(plan.sample(start_ns + k * STEP_NS), target_rad[k])


@given(chunks, st.integers(0, 5 * STEP_NS))
def test_between_steps_it_is_numpys_interpolation(target_rad: Vector, t_ns: int) -> None:
    plan = ChunkPlan(0, STEP_NS, target_rad)
    steps_ns = np.arange(6) * STEP_NS
    expected = [np.interp(t_ns, steps_ns, target_rad[:, joint]) for joint in range(2)]
    np.testing.assert_allclose(plan.sample(t_ns), expected, atol=1e-12)


@given(chunks)
def test_after_its_end_it_slows_to_rest_and_holds(target_rad: Vector) -> None:
    plan = ChunkPlan(0, STEP_NS, target_rad)
    times_ns = plan.last_step_ns + np.linspace(0, REST_NS, 81).astype(np.int64)
    way = np.array([plan.sample(int(t)) for t in times_ns])
    speed = np.abs(np.diff(way, axis=0)) / np.diff(times_ns)[:, None] * 1e9
    last_speed = np.abs(target_rad[-1] - target_rad[-2]) / (STEP_NS / 1e9)
    assert np.all(speed <= last_speed + 1e-6)
    assert np.all(np.diff(speed, axis=0) <= 1e-6)
    np.testing.assert_allclose(speed[-1], 0.0, atol=float(last_speed.max()) / 60 + 1e-6)
    np.testing.assert_array_equal(plan.sample(plan.rest_ns), plan.sample(plan.rest_ns + 10**12))


@given(st.lists(st.tuples(st.integers(0, 400), st.integers(0, 400), chunks), max_size=6))
def test_no_command_leaps_whatever_chunks_arrive(
    arrivals: list[tuple[int, int, Vector]],
) -> None:
    """Trajectory and safety together: each tick moves at most one nominal step."""
    limits = Limits(
        ("a", "b"), np.full(2, -1.0), np.full(2, 1.0), np.array([0.5, 2.0]), np.full(2, 250.0)
    )
    safety = Safety(limits, PERIOD_NS / 1e9, ControlConfig(), SafetyConfig())
    trajectory = Trajectory(blend_s=0.1)
    safety.arm(0, np.zeros(2))
    by_tick = {tick // 4: (age_ms, rows) for tick, age_ms, rows in arrivals}
    for tick in range(120):
        now_ns = 10**9 + tick * PERIOD_NS
        if tick in by_tick:
            age_ms, rows = by_tick[tick]
            message = chunk(tick, now_ns - age_ms * 1_000_000, rows)
            trajectory.take(message, now_ns, safety.command_rad, resume=False)
        before = safety.command_rad
        target = trajectory.target(now_ns)
        if target is None or trajectory.chunk is None:
            after = safety.hold(now_ns, "no chunk")
        else:
            after = safety.command(now_ns, target, trajectory.chunk.t_capture_ns, current=True)
        assert np.all(np.abs(after - before) <= limits.velocity_rad_s * 0.02 + 1e-12)


@given(chunks, chunks, st.integers(0, 5 * STEP_NS - 1))
def test_a_blend_starts_on_the_old_plan_and_ends_on_the_new(
    old: Vector, new: Vector, switch_ns: int
) -> None:
    trajectory = Trajectory(blend_s=0.1)
    trajectory.take(chunk(1, 0, old), 0, old[0], resume=False)
    trajectory.target(switch_ns)
    before = trajectory.target(switch_ns)
    jump_rad = trajectory.take(chunk(2, 0, new), switch_ns, old[0], resume=False)
    after = trajectory.target(switch_ns)
    assert before is not None
    assert after is not None
    np.testing.assert_allclose(after, before, atol=1e-12)
    assert jump_rad is not None
    plan = ChunkPlan(0, STEP_NS, new)
    np.testing.assert_allclose(jump_rad, np.max(np.abs(before - plan.sample(switch_ns))))
    end_ns = switch_ns + 100_000_000
    end = trajectory.target(end_ns)
    if end is not None:
        np.testing.assert_array_equal(end, plan.sample(end_ns))


def test_past_steps_are_never_played() -> None:
    """A chunk that arrives 100 ms old is entered at its third step, not at its first."""
    rows = np.repeat(np.arange(6.0)[:, None], 2, axis=1)
    trajectory = Trajectory(blend_s=0.0)
    trajectory.take(chunk(1, 0, rows), 100_000_000, np.zeros(2), resume=False)
    target = trajectory.target(100_000_000)
    assert target is not None
    assert target.tolist() == [2.0, 2.0]


def test_a_chunk_that_is_wholly_past_is_refused_and_the_old_plan_goes_on() -> None:
    rows = np.zeros((6, 2))
    trajectory = Trajectory(blend_s=0.1)
    trajectory.take(chunk(2, 200_000_000, rows), 200_000_000, np.zeros(2), resume=False)
    assert trajectory.take(chunk(3, 0, rows + 1), 250_000_000, np.zeros(2), False) is None
    assert trajectory.chunk is not None
    assert trajectory.chunk.seq == 2


def test_a_resumed_plan_blends_from_the_present_command() -> None:
    trajectory = Trajectory(blend_s=0.1)
    trajectory.take(chunk(1, 0, np.ones((6, 2))), 0, np.zeros(2), resume=False)
    held = np.array([0.3, -0.3])
    trajectory.take(chunk(2, 0, np.ones((6, 2))), 150_000_000, held, resume=True)
    target = trajectory.target(150_000_000)
    assert target is not None
    np.testing.assert_allclose(target, held)


def test_nothing_to_play_after_rest() -> None:
    trajectory = Trajectory(blend_s=0.1)
    trajectory.take(chunk(1, 0, np.zeros((6, 2))), 0, np.zeros(2), resume=False)
    end_ns = 5 * STEP_NS + REST_NS
    assert trajectory.target(end_ns - 1) is not None
    assert trajectory.target(end_ns) is None
    assert trajectory.chunk is None


@pytest.mark.parametrize("interval_ms", [20, 60])
def test_blends_begun_within_blends_do_not_pile_up(interval_ms: int) -> None:
    trajectory = Trajectory(blend_s=0.1)
    for seq in range(200):
        now_ns = seq * interval_ms * 1_000_000
        trajectory.take(chunk(seq, now_ns, np.zeros((6, 2))), now_ns, np.zeros(2), False)
        trajectory.target(now_ns)
    depth, plan = 0, cast(Any, trajectory._plan)
    while hasattr(plan, "old"):
        depth, plan = depth + 1, plan.old
    assert depth <= 100 // interval_ms + 1
