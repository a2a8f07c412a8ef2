"""The task: drop the ring over a sliding puck, on the level `puck` or `rebound`.

A scenario is everything that differs between episodes. One seed determines it, so that two policies
can be compared on the same episodes. A scenario is kept only if the speed-limited arm, which knows
the true velocity, succeeds in a calculation without physics.
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
# Frames before the arm is released: System 2's motion clip, then time for the first condition and
# the first chunk.
CLIP_STEPS: Final = 6
WARM_UP_STEPS: Final = CLIP_STEPS + 3
WARM_UP_S: Final = WARM_UP_STEPS * STEP_S
SPEED_M_S: Final = (0.25, 0.55)
OFFSET_M: Final = (0.08, 0.16)
TIME_TO_GO_S: Final = (0.5, 1.2)
# On `rebound`: the time of the kick after the warm-up, the smallest turn of the puck, and the time
# to the closest approach on the old and on the new line.
KICK_AFTER_S: Final = (0.15, 0.6)
TURN_RAD: Final = np.deg2rad(50)
TIME_TO_GO_AT_KICK_S: Final = 0.35
TIME_TO_GO_AFTER_KICK_S: Final = (0.8, 1.4)
# An arm that starts late by the first time (after the warm-up or the kick) still succeeds; by the
# second time it fails. So waiting to see where the puck goes is too late.
SLACK_S: Final = {"puck": (0.2, 0.35), "rebound": (0.65, 1.0)}
VIEW_M: Final = 0.46
EPISODE_STEPS: Final = {"puck": 38, "rebound": 50}
START_NOISE_M: Final = 0.015


@dataclass(frozen=True, slots=True)
class Scenario:
    """One episode. Times count from its first frame. The arm is released after the warm-up.

    `joints_rad` is [5], positions and velocities of the puck are [2].
    """

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
    """Whether the ring [3] lies on the table with the puck [2] inside it. Positions are in m."""
    return bool(expert.captured(ring_m, puck_m))


def scenario(seed: int, level: Level = "puck") -> Scenario:
    """Draw a scenario. The same seed and level always give the same episode."""
    rng = np.random.default_rng([seed, LEVELS.index(level)])
    while True:
        drawn = _draw(rng, seed, level)
        if drawn is not None:
            return drawn


def start_joints(rng: np.random.Generator) -> F64:
    """Draw the arm's start [5], with the ring at hover height near the workspace centre."""
    return arm.joints_for_ring(_start_ring(rng))


def _start_ring(rng: np.random.Generator) -> F64:
    """Draw where the ring starts, float64 [3] in m."""
    x, y = CENTRE_M + rng.normal(0.0, START_NOISE_M, 2)
    return np.array([x, y, expert.HOVER_M])


def _draw(rng: np.random.Generator, seed: int, level: Level) -> Scenario | None:
    ring = _start_ring(rng)  # its joints come later: most draws fail a cheap check before
    if level == "puck":
        released, velocity = _line(rng, TIME_TO_GO_S)
        start = released - velocity * WARM_UP_S
        if not _in_view(start):
            return None
        joints = arm.joints_for_ring(ring)
        if not _just_in_time(level, joints, released, velocity, velocity):
            return None
        return Scenario(seed, level, joints, start, velocity, np.inf, velocity)
    kicked_at, after = _line(rng, TIME_TO_GO_AFTER_KICK_S)
    before, kick_s = _velocity(rng), rng.uniform(*KICK_AFTER_S)
    start = kicked_at - before * (WARM_UP_S + kick_s)
    if not (_in_view(start) and _in_view(kicked_at) and _turns(kicked_at, before, after)):
        return None
    joints = arm.joints_for_ring(ring)
    released = kicked_at - before * kick_s
    command = expert.rollout(joints, released, before, round(kick_s / STEP_S) + 1)[-1]
    if not _just_in_time(level, command, kicked_at, before, after):
        return None
    return Scenario(seed, level, joints, start, before, WARM_UP_S + kick_s, after)


def _velocity(rng: np.random.Generator) -> F64:
    heading = rng.uniform(0, 2 * np.pi)
    return np.array([np.cos(heading), np.sin(heading)]) * rng.uniform(*SPEED_M_S)


def _line(rng: np.random.Generator, time_to_go_s: tuple[float, float]) -> tuple[F64, F64]:
    """Draw a line past the workspace centre. Returns a position [2] and a velocity [2].

    From the position the puck reaches its closest point after a drawn time.
    """
    velocity = _velocity(rng)
    across = np.array([-velocity[1], velocity[0]]) / np.linalg.norm(velocity)
    closest = CENTRE_M + rng.choice([-1, 1]) * rng.uniform(*OFFSET_M) * across
    return closest - velocity * rng.uniform(*time_to_go_s), velocity


def _turns(puck_m: F64, before_m_s: F64, after_m_s: F64) -> bool:
    """Whether the kick makes the old velocity useless and comes while the puck approaches."""
    cosine = before_m_s @ after_m_s / (np.linalg.norm(before_m_s) * np.linalg.norm(after_m_s))
    approaching = expert.time_to_go_s(puck_m, before_m_s) > TIME_TO_GO_AT_KICK_S
    return bool(cosine < np.cos(TURN_RAD) and approaching)


def _just_in_time(
    level: Level, command_rad: F64, puck_m: F64, believed_m_s: F64, velocity_m_s: F64
) -> bool:
    """Whether the arm succeeds with the first delay of `SLACK_S` and fails with the second.

    Until it learns the true velocity it keeps still (`puck`) or follows the old one (`rebound`).
    """
    for late_s, makes_it in zip(SLACK_S[level], (True, False), strict=True):
        command = command_rad
        if level == "rebound":
            steps = round(late_s / STEP_S) + 1
            command = expert.rollout(command_rad, puck_m, believed_m_s, steps)[-1]
        if _reachable(command, puck_m + velocity_m_s * late_s, velocity_m_s) is not makes_it:
            return False
    return True


def _in_view(puck_m: F64) -> bool:
    return bool(np.all(np.abs(puck_m - CENTRE_M) < VIEW_M))


def _reachable(command_rad: F64, puck_m: F64, velocity_m_s: F64) -> bool:
    """Whether the ring is around the puck, within 1 cm, when the puck is closest to the centre."""
    to_go = float(expert.time_to_go_s(puck_m, velocity_m_s))
    when = round((to_go + expert.DOWN_AFTER_S) / STEP_S)
    aim = puck_m + velocity_m_s * to_go
    ring = arm.ring_position(expert.rollout(command_rad, puck_m, velocity_m_s, when + 1)[-1])
    return bool(np.linalg.norm(ring[:2] - aim) < 0.01 and ring[2] < expert.LOW_M and _in_view(aim))


def replace_start(scenario: Scenario, joints_rad: F64) -> Scenario:
    """Return the same episode with another start pose [5] of the arm."""
    return dataclasses.replace(scenario, joints_rad=joints_rad)
