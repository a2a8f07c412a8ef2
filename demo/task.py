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
# The policy sees this many frames before the arm is released: System 2's motion window, and time
# for the first condition and the first chunk.
CLIP_STEPS: Final = 6
WARM_UP_STEPS: Final = CLIP_STEPS + 3
WARM_UP_S: Final = WARM_UP_STEPS * STEP_S
SPEED_M_S: Final = (0.25, 0.55)
OFFSET_M: Final = (0.08, 0.16)
TIME_TO_GO_S: Final = (0.5, 1.2)
# On `rebound`: how long after the warm-up the kick comes, by how much at least it turns the puck,
# and how far off the closest approach then is on the old line and on the new.
KICK_AFTER_S: Final = (0.15, 0.6)
TURN_RAD: Final = np.deg2rad(50)
TIME_TO_GO_AT_KICK_S: Final = 0.35
TIME_TO_GO_AFTER_KICK_S: Final = (0.8, 1.4)
# An arm that sets off this much late (after the warm-up, or after the kick) still makes it, and one
# that sets off that much late does not: who waits and sees where the puck goes is too late.
SLACK_S: Final = {"puck": (0.2, 0.35), "rebound": (0.65, 1.0)}
VIEW_M: Final = 0.46
EPISODE_STEPS: Final = {"puck": 38, "rebound": 50}
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
    joints = start_joints(rng)
    if level == "puck":
        released, velocity = _line(rng, TIME_TO_GO_S)
        start = released - velocity * WARM_UP_S
        if not _in_view(start) or not _just_in_time(level, joints, released, velocity, velocity):
            return None
        return Scenario(seed, level, joints, start, velocity, np.inf, velocity)
    kicked_at, after = _line(rng, TIME_TO_GO_AFTER_KICK_S)
    before, kick_s = _velocity(rng), rng.uniform(*KICK_AFTER_S)
    start = kicked_at - before * (WARM_UP_S + kick_s)
    if not (_in_view(start) and _in_view(kicked_at) and _turns(kicked_at, before, after)):
        return None
    released = kicked_at - before * kick_s
    command = expert.rollout(joints, released, before, round(kick_s / STEP_S) + 1)[-1]
    if not _just_in_time(level, command, kicked_at, before, after):
        return None
    return Scenario(seed, level, joints, start, before, WARM_UP_S + kick_s, after)


def _velocity(rng: np.random.Generator) -> F64:
    heading = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(heading), np.sin(heading)]) * rng.uniform(*SPEED_M_S)


def _line(rng: np.random.Generator, time_to_go_s: tuple[float, float]) -> tuple[F64, F64]:
    """A velocity [2], and the place [2] from which it passes the centre in so many seconds, beside
    it by a drawn offset.
    """
    velocity = _velocity(rng)
    across = np.array([-velocity[1], velocity[0]]) / np.linalg.norm(velocity)
    closest = CENTRE_M + rng.choice([-1, 1]) * rng.uniform(*OFFSET_M) * across
    return closest - velocity * rng.uniform(*time_to_go_s), velocity


def _turns(puck_m: F64, before_m_s: F64, after_m_s: F64) -> bool:
    """The kick turns the puck by enough to make the old velocity useless, and comes while the puck
    still approaches.
    """
    cosine = before_m_s @ after_m_s / (np.linalg.norm(before_m_s) * np.linalg.norm(after_m_s))
    approaching = expert.time_to_go_s(puck_m, before_m_s) > TIME_TO_GO_AT_KICK_S
    return bool(cosine < np.cos(TURN_RAD) and approaching)


def _just_in_time(
    level: Level, command_rad: F64, puck_m: F64, believed_m_s: F64, velocity_m_s: F64
) -> bool:
    """The arm makes it if it learns of the puck's velocity the first of `SLACK_S` late, and does
    not if it learns the second late. Until then it keeps still (`puck`) or goes by what it believed
    (`rebound`).
    """
    makes_it = []
    for late_s in SLACK_S[level]:
        command = command_rad
        if level == "rebound":
            steps = round(late_s / STEP_S) + 1
            command = expert.rollout(command_rad, puck_m, believed_m_s, steps)[-1]
        makes_it.append(_reachable(command, puck_m + velocity_m_s * late_s, velocity_m_s))
    return makes_it == [True, False]


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
