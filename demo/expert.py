"""A teacher with state access: smooth, without memory, and right only if it is told the true
velocity.

Smoothness matters more than skill here: a policy cannot learn a hard "drop now" that flips on a
millimetre.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from demo import arm
from demo.arm import F64

STEP_S: Final = 0.05
CENTRE_M: Final = np.array([0.29, 0.0])
HOVER_M: Final = 0.05
DOWN_M: Final = 0.004
# A ring lower than this is down, and one whose centre is so near to the puck's is around it.
LOW_M: Final = 0.012
INSIDE_M: Final = arm.RING_INNER_M - 0.018
# A ring around the puck and lower than this, which is just below the puck's top, keeps it.
SEIZE_M: Final = 0.024
DESCENT_S: Final = 0.5
# The command is down this long after the puck's closest approach: when the puck is closest, the
# wall of the real ring, some 0.07 s behind its command, passes the puck's top.
DOWN_AFTER_S: Final = 0.13
PITCH: Final = slice(1, 4)


@dataclass(frozen=True, slots=True)
class Manner:
    """How the ring comes down: how low it is sent, and when it is there after the puck's closest
    approach.
    """

    down_m: float
    down_after_s: float


USUAL: Final = Manner(DOWN_M, DOWN_AFTER_S)
# For a learner that stops about a centimetre short of what it is taught and comes some 0.015 s
# late: it presses the ring onto the table (demo/train.py).
FIRM: Final = Manner(-0.006, 0.115)


def time_to_go_s(puck_m: F64, velocity_m_s: F64) -> F64:
    """Seconds until the puck is closest to the workspace centre (negative: it has passed). [...,
    2] -> [...].
    """
    speed2 = np.sum(velocity_m_s**2, axis=-1)
    ahead = np.sum((CENTRE_M - puck_m) * velocity_m_s, axis=-1)
    return np.asarray(ahead / np.maximum(speed2, 1e-4))


def ring_target(puck_m: F64, velocity_m_s: F64, manner: Manner = USUAL) -> F64:
    """Where the ring should be now [..., 3]: above the puck's closest point, lowered as a ramp of
    the time to go.
    """
    to_go = np.clip(time_to_go_s(puck_m, velocity_m_s), -1.5, 3.0)
    aim = puck_m + velocity_m_s * to_go[..., None]
    offset = aim - CENTRE_M
    distance = np.linalg.norm(offset, axis=-1, keepdims=True)
    aim = CENTRE_M + offset * np.minimum(1.0, 0.17 / np.maximum(distance, 1e-6))
    ramp = DOWN_M + (HOVER_M - DOWN_M) / DESCENT_S * (to_go + manner.down_after_s)
    return np.concatenate([aim, np.clip(ramp, manner.down_m, HOVER_M)[..., None]], axis=-1)


def captured(ring_m: F64, puck_m: F64) -> npt.NDArray[np.bool_]:
    """True where the puck lies inside a ring that is down. [..., 3], [..., 2] -> [...]."""
    return _around(ring_m, puck_m, LOW_M)


def _around(ring_m: F64, puck_m: F64, below_m: float) -> npt.NDArray[np.bool_]:
    near = np.linalg.norm(ring_m[..., :2] - puck_m, axis=-1) < INSIDE_M
    return np.asarray(near & (ring_m[..., 2] < below_m))


def rollout(
    command_rad: F64, puck_m: F64, velocity_m_s: F64, steps: int, manner: Manner = USUAL
) -> F64:
    """Commands [..., steps, 5] at 0, 1, ... steps from now if the puck keeps its velocity; the
    first is `command_rad`. They keep to the arm's speed limits.

    Once the ring is around the puck it goes straight down and stays there, however the puck then
    bounces inside: a teacher that weighed that anew in each step could not be learnt.
    """
    commands = [command_rad]
    seized = np.zeros(command_rad.shape[:-1], dtype=np.bool_)
    for k in range(steps - 1):
        now, puck = commands[-1], puck_m + velocity_m_s * (k * STEP_S)
        ring = arm.ring_position(now)
        seized |= _around(ring, puck, SEIZE_M)
        down = np.concatenate([ring[..., :2], np.full((*seized.shape, 1), manner.down_m)], axis=-1)
        target = np.where(seized[..., None], down, ring_target(puck, velocity_m_s, manner))
        commands.append(towards(arm.joints_for_ring(target), now))
    return np.stack(commands, axis=-2)


def towards(target_rad: F64, command_rad: F64) -> F64:
    """One step (`STEP_S`) of the command to the target, within the speed limits."""
    move = target_rad - command_rad
    excess = np.abs(move) / (arm.VELOCITY_LIMIT_RAD_S * STEP_S)
    # The pitch joints share one scale, so that the ring keeps its height on the way; yaw and roll
    # do not change it.
    excess[..., PITCH] = np.max(excess[..., PITCH], axis=-1, keepdims=True)
    return np.asarray(command_rad + move / np.maximum(excess, 1.0))
