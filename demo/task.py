"""The task: drop the ring over a sliding puck. Two levels, `puck` and `rebound`.

A scenario is everything that differs between episodes, drawn from one seed, so that two policies
can be compared on the same episodes. Only scenarios in which the true velocity leads to success on
paper (speed-limited arm, no physics) are kept; nothing else is selected.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np

from demo import arm, expert
from demo.arm import F64
from demo.expert import CENTRE_M, STEP_S

Level = Literal["puck", "rebound"]
LEVELS: Final = get_args(Level)
# The policy sees this many frames before the arm is released: as long as System 2's motion window.
WARM_UP_STEPS: Final = 6
SPEED_M_S: Final = (0.30, 0.45)
OFFSET_M: Final = (0.04, 0.16)
TIME_TO_GO_S: Final = {"puck": (0.75, 1.3), "rebound": (0.55, 1.0)}
# On `rebound`: how long after the warm-up the kick comes, and how long the new line leaves for its
# closest approach.
KICK_AFTER_S: Final = (0.15, 0.6)
TIME_TO_GO_AFTER_KICK_S: Final = (0.75, 1.1)
VIEW_M: Final = 0.38
EPISODE_STEPS: Final = {"puck": 42, "rebound": 50}
START_NOISE_M: Final = 0.015


@dataclass(frozen=True, slots=True)
class Scenario:
    """One episode. Times count from its first frame; the arm is released after the warm-up."""

    seed: int
    level: Level
    joints_rad: F64
    puck_m: F64
    puck_velocity_m_s: F64
    kick_s: float
    kick_velocity_m_s: F64

    @property
    def steps(self) -> int:
        return WARM_UP_STEPS + EPISODE_STEPS[self.level]


def success(ring_m: F64, puck_m: F64) -> bool:
    """The ring lies on the table and the puck is inside it."""
    return bool(expert.captured(ring_m, puck_m))


def scenario(seed: int, level: Level = "puck") -> Scenario:
    """Draw the scenario of `seed`: the same seed and level always give the same episode."""
    rng = np.random.default_rng([seed, LEVELS.index(level)])
    while True:
        drawn = _draw(rng, seed, level)
        if drawn is not None:
            return drawn


def start_joints(rng: np.random.Generator) -> F64:
    """The arm's start: ring level at hover height near the workspace centre."""
    x, y = CENTRE_M + rng.normal(0.0, START_NOISE_M, 2)
    return arm.joints_for_ring(np.array([x, y, expert.HOVER_M]))


def _draw(rng: np.random.Generator, seed: int, level: Level) -> Scenario | None:
    heading = rng.uniform(0, 2 * np.pi)
    ahead = np.array([np.cos(heading), np.sin(heading)])
    velocity = ahead * rng.uniform(*SPEED_M_S)
    line = CENTRE_M + rng.choice([-1, 1]) * rng.uniform(*OFFSET_M) * np.array([-ahead[1], ahead[0]])
    warm_up_s = WARM_UP_STEPS * STEP_S
    released = line - velocity * rng.uniform(*TIME_TO_GO_S[level])
    joints = start_joints(rng)
    start = released - velocity * warm_up_s
    if not _in_view(start):
        return None
    if level == "puck":
        if not _reachable(joints, released, velocity):
            return None
        return Scenario(seed, level, joints, start, velocity, np.inf, velocity)
    after_s = rng.uniform(*KICK_AFTER_S)
    kicked_at = released + velocity * after_s
    new_velocity = _velocity_after_kick(rng, kicked_at)
    if new_velocity is None or not _turns_in_time(kicked_at, velocity, new_velocity):
        return None
    command = expert.rollout(joints, released, velocity, round(after_s / STEP_S) + 1)[-1]
    if not _reachable(command, kicked_at, new_velocity):
        return None
    return Scenario(seed, level, joints, start, velocity, warm_up_s + after_s, new_velocity)


def _velocity_after_kick(rng: np.random.Generator, puck_m: F64) -> F64 | None:
    """A new velocity on a line that passes the centre at a drawn offset; None if the puck is
    closer than that.
    """
    to_centre = CENTRE_M - puck_m
    distance = float(np.hypot(*to_centre))
    offset = rng.choice([-1, 1]) * rng.uniform(*OFFSET_M)
    if abs(offset) >= distance:
        return None
    heading = np.arctan2(to_centre[1], to_centre[0]) + np.arcsin(offset / distance)
    return np.array([np.cos(heading), np.sin(heading)]) * rng.uniform(*SPEED_M_S)


def _turns_in_time(puck_m: F64, before_m_s: F64, after_m_s: F64) -> bool:
    """The kick turns the puck by more than 25 degrees and leaves the arm the time that the level
    wants.
    """
    cosine = before_m_s @ after_m_s / (np.linalg.norm(before_m_s) * np.linalg.norm(after_m_s))
    shortest, longest = TIME_TO_GO_AFTER_KICK_S
    to_go_s = float(expert.time_to_go_s(puck_m, after_m_s))
    return bool(cosine < np.cos(np.deg2rad(25)) and shortest <= to_go_s <= longest)


def _in_view(puck_m: F64) -> bool:
    return bool(np.all(np.abs(puck_m - CENTRE_M) < VIEW_M))


def _reachable(command_rad: F64, puck_m: F64, velocity_m_s: F64) -> bool:
    """The speed-limited arm has the ring down around the puck when the puck is closest, with a
    centimetre to spare.
    """
    to_go = float(expert.time_to_go_s(puck_m, velocity_m_s))
    when = round((to_go + expert.DOWN_AFTER_S) / STEP_S)
    aim = puck_m + velocity_m_s * to_go
    ring = arm.ring_position(expert.rollout(command_rad, puck_m, velocity_m_s, when + 1)[-1])
    return bool(np.linalg.norm(ring[:2] - aim) < 0.01 and ring[2] < expert.LOW_M and _in_view(aim))


def replace_start(scenario: Scenario, joints_rad: F64) -> Scenario:
    """The same episode from another pose of the arm [5]."""
    return dataclasses.replace(scenario, joints_rad=joints_rad)
