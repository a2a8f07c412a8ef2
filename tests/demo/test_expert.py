"""The teacher: within the arm's speed, smooth in what it is told, and done once it holds."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from hypothesis import assume, given
from hypothesis import strategies as st

from demo import arm, expert, task
from demo.arm import F64

STEPS = 16
LIMIT_RAD = arm.VELOCITY_LIMIT_RAD_S * expert.STEP_S


def vectors(low: F64, high: F64) -> st.SearchStrategy[F64]:
    parts = [st.floats(float(a), float(b)) for a, b in zip(low, high, strict=True)]
    return st.tuples(*parts).map(np.array)


JOINTS = vectors(arm.LOWER_RAD, arm.UPPER_RAD)
PUCK = vectors(expert.CENTRE_M - 0.4, expert.CENTRE_M + 0.4)
VELOCITY = vectors(np.full(2, -0.5), np.full(2, 0.5))
SCENARIOS = st.integers(0, 10_000).map(task.scenario)
DIRECTIONS = vectors(np.full(4, -1.0), np.full(4, 1.0))


@given(JOINTS, PUCK, VELOCITY)
def test_no_command_exceeds_speed_or_range(joints: F64, puck: F64, velocity: F64) -> None:
    commands = expert.rollout(joints, puck, velocity, STEPS)
    assert np.all(np.abs(np.diff(commands, axis=0)) <= LIMIT_RAD + 1e-12)
    assert np.all(commands >= arm.LOWER_RAD - 1e-12)
    assert np.all(commands <= arm.UPPER_RAD + 1e-12)


@given(JOINTS, PUCK, VELOCITY)
def test_a_rollout_begins_with_the_command_and_follows_from_it(
    joints: F64, puck: F64, velocity: F64
) -> None:
    # A ring that has been around the puck stays down, and a rollout begun later knows of none.
    assume(np.linalg.norm(arm.ring_position(joints)[:2] - puck) >= expert.INSIDE_M)
    commands = expert.rollout(joints, puck, velocity, 4)
    np.testing.assert_array_equal(commands[0], joints)
    later = expert.rollout(commands[1], puck + velocity * expert.STEP_S, velocity, 3)
    np.testing.assert_allclose(commands[1:], later, atol=1e-9)


def chunk_and_holds(
    scenario: task.Scenario, time_s: float, change: F64
) -> tuple[F64, npt.NDArray[np.bool_]]:
    """The teacher's chunk for the arm and puck of `scenario` at `time_s`, the puck's state changed
    by `change` [4]; and where in it the ring holds the puck.
    """
    velocity = scenario.puck_velocity_m_s + change[2:]
    puck = scenario.puck_m + scenario.puck_velocity_m_s * time_s + change[:2]
    chunk = expert.rollout(scenario.joints_rad, puck, velocity, STEPS)
    pucks = puck + velocity * (np.arange(STEPS)[:, None] * expert.STEP_S)
    return chunk, expert.captured(arm.ring_position(chunk), pucks)


@given(SCENARIOS, st.floats(0.0, 1.5), DIRECTIONS, st.sampled_from([1e-3, 1e-4, 1e-5]))
def test_a_small_change_of_the_puck_is_a_small_change_of_the_chunk(
    scenario: task.Scenario, time_s: float, direction: F64, size: float
) -> None:
    chunk, holds = chunk_and_holds(scenario, time_s, np.zeros(4))
    other, other_holds = chunk_and_holds(scenario, time_s, size * direction)
    # Whether the ring already holds the puck is yes or no; the next test is about that.
    same = np.cumprod(holds == other_holds).astype(bool)
    assert np.abs(other - chunk)[same].max() <= 30.0 * size  # 30 mrad a millimetre


@given(vectors(np.full(2, -0.022), np.full(2, 0.022)))
def test_a_ring_that_holds_the_puck_stays(off_centre_m: F64) -> None:
    place = np.array([0.28, 0.05, expert.DOWN_M])
    joints = arm.joints_for_ring(place)
    commands = expert.rollout(joints, place[:2] + off_centre_m, np.zeros(2), STEPS)
    np.testing.assert_array_equal(commands, np.tile(joints, (STEPS, 1)))


@given(PUCK, VELOCITY)
def test_the_target_is_lowered_as_the_puck_comes_near(puck: F64, velocity: F64) -> None:
    target = expert.ring_target(puck, velocity)
    to_go_s = expert.time_to_go_s(puck, velocity)
    assert np.linalg.norm(target[:2] - expert.CENTRE_M) <= 0.17 + 1e-12
    assert expert.DOWN_M <= target[2] <= expert.HOVER_M
    if to_go_s < -expert.DOWN_AFTER_S:
        assert target[2] == expert.DOWN_M
    if to_go_s > expert.DESCENT_S:
        assert target[2] == expert.HOVER_M
