"""The task: fair episodes, and a success rate that knowing the velocity decides."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from demo import arm, expert, task
from demo.physics import PUCK_RADIUS_M
from demo.picture import HALF_VIEW_M
from demo.statistics import rate
from tools import oracles
from tools.oracles import Plan

N = 100
Scenarios = dict[task.Level, list[task.Scenario]]


@pytest.fixture(scope="module")
def scenarios() -> Scenarios:
    """The same `N` episodes for everyone."""
    return {level: [task.scenario(seed, level) for seed in range(N)] for level in task.LEVELS}


def all_of(scenarios: Scenarios) -> Iterator[task.Scenario]:
    for level in task.LEVELS:
        yield from scenarios[level]


def test_a_seed_and_level_always_give_the_same_episode(scenarios: Scenarios) -> None:
    chosen: tuple[tuple[task.Level, int], ...] = (("puck", 3), ("rebound", 3), ("puck", 70))
    for level, seed in chosen:
        again, first = task.scenario(seed, level), scenarios[level][seed]
        for field in ("joints_rad", "puck_m", "puck_velocity_m_s", "kick_velocity_m_s"):
            np.testing.assert_array_equal(getattr(again, field), getattr(first, field))
        assert (again.seed, again.level, again.kick_s) == (first.seed, level, first.kick_s)


def test_every_seed_and_level_is_an_episode_of_its_own(scenarios: Scenarios) -> None:
    starts = np.array([scenario.puck_m for scenario in all_of(scenarios)])
    assert len(np.unique(starts, axis=0)) == len(starts)


def test_the_puck_is_in_the_picture_until_it_is_closest(scenarios: Scenarios) -> None:
    for scenario in all_of(scenarios):
        places = [scenario.puck_m, *closest_approach(scenario)]
        for place in places:
            assert np.abs(place - expert.CENTRE_M).max() < HALF_VIEW_M - PUCK_RADIUS_M


def closest_approach(scenario: task.Scenario) -> list[np.ndarray]:
    """Where the kick happens, if one does, and where the puck is closest to the centre."""
    puck, velocity, kicked = scenario.puck_m, scenario.puck_velocity_m_s, []
    if scenario.level == "rebound":
        puck = puck + velocity * scenario.kick_s
        velocity, kicked = scenario.kick_velocity_m_s, [puck]
    return [*kicked, puck + velocity * expert.time_to_go_s(puck, velocity)]


def test_the_arm_begins_with_the_ring_above_the_centre(scenarios: Scenarios) -> None:
    for scenario in all_of(scenarios):
        ring = arm.ring_position(scenario.joints_rad)
        assert np.linalg.norm(ring[:2] - expert.CENTRE_M) < 5 * task.START_NOISE_M
        assert ring[2] == pytest.approx(expert.HOVER_M)


def test_speeds_are_as_announced(scenarios: Scenarios) -> None:
    slowest, fastest = task.SPEED_M_S
    for scenario in all_of(scenarios):
        for velocity in (scenario.puck_velocity_m_s, scenario.kick_velocity_m_s):
            assert slowest <= np.linalg.norm(velocity) <= fastest


def test_a_rebound_turns_the_puck_after_the_arm_was_released(scenarios: Scenarios) -> None:
    for scenario in scenarios["rebound"]:
        before, after = scenario.puck_velocity_m_s, scenario.kick_velocity_m_s
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        assert np.rad2deg(np.arccos(cosine)) >= 50.0
        assert scenario.kick_s >= task.WARM_UP_STEPS * expert.STEP_S + task.KICK_AFTER_S[0]
        assert scenario.kick_s < scenario.steps * expert.STEP_S


def test_on_puck_nothing_kicks(scenarios: Scenarios) -> None:
    assert all(scenario.kick_s == np.inf for scenario in scenarios["puck"])


@pytest.mark.parametrize(
    ("ring_z", "off_centre", "won"),
    [
        (expert.DOWN_M, 0.0, True),
        (expert.DOWN_M, expert.INSIDE_M - 1e-3, True),
        (expert.DOWN_M, expert.INSIDE_M + 1e-3, False),
        (expert.LOW_M + 1e-3, 0.0, False),
    ],
)
def test_success_is_a_ring_that_lies_around_the_puck(
    ring_z: float, off_centre: float, won: bool
) -> None:
    ring = np.array([*expert.CENTRE_M, ring_z])
    assert task.success(ring, expert.CENTRE_M + np.array([off_centre, 0.0])) is won


def test_another_start_is_the_same_episode_otherwise(scenarios: Scenarios) -> None:
    first = scenarios["puck"][0]
    moved = task.replace_start(first, first.joints_rad + 0.1)
    np.testing.assert_array_equal(moved.joints_rad, first.joints_rad + 0.1)
    np.testing.assert_array_equal(moved.puck_m, first.puck_m)


# (level, player, plans again every so many steps of 50 ms)
KNOWS_THE_VELOCITY = [(level, oracles.teacher, every) for level in task.LEVELS for every in (1, 4)]
GUESSES = [
    (level, player, every)
    for level in task.LEVELS
    for player, often in {
        oracles.still: (1, 4, 8),
        oracles.to_the_centre: (1, 4, 8),
        oracles.chase: (1,),
        oracles.wait_at_the_centre: (1,),
    }.items()
    for every in often
]
# Who only reacts: share of the way to the puck, distance at which the ring drops.
REACTIONS = [(0.7, 0.03), (1.0, 0.03), (1.0, 0.05)]


def describe(won: int) -> str:
    low, high = (100 * bound for bound in rate([True] * won + [False] * (N - won))["ci95"])
    return f"{won} of {N} (Wilson 95 %: {low:.1f} to {high:.1f} %)"


@pytest.mark.parametrize(("level", "player", "every"), KNOWS_THE_VELOCITY)
def test_who_knows_the_velocity_succeeds(
    scenarios: Scenarios, level: task.Level, player: Plan, every: int
) -> None:
    won = oracles.count_successes(scenarios[level], player, every)
    assert won >= 0.97 * N, describe(won)


@pytest.mark.parametrize(("level", "player", "every"), GUESSES)
def test_who_guesses_the_velocity_fails(
    scenarios: Scenarios, level: task.Level, player: Plan, every: int
) -> None:
    won = oracles.count_successes(scenarios[level], player, every)
    assert won <= 0.35 * N, describe(won)


@pytest.mark.parametrize(("share", "near_m"), REACTIONS)
def test_who_only_reacts_fails_on_puck(scenarios: Scenarios, share: float, near_m: float) -> None:
    won = oracles.count_successes(scenarios["puck"], oracles.snatch(share, near_m), 1)
    assert won <= 0.35 * N, describe(won)
