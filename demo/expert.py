"""The teacher: computes the right commands from the true state of the puck.

It has no memory, and it needs the puck's true velocity. Its commands are smooth functions of the
state, as a policy cannot learn a hard "drop now" that flips within a millimetre.
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
# A ring below LOW_M is down. A ring whose centre is within INSIDE_M of the puck's is around it.
LOW_M: Final = 0.012
INSIDE_M: Final = arm.RING_INNER_M - 0.018
# Just below the puck's top: a ring around the puck and below this height keeps it.
SEIZE_M: Final = 0.024
DESCENT_S: Final = 0.5
# The command is down this long after the puck's closest approach. The real ring is some 0.07 s
# behind its command, so its wall passes the puck's top when the puck is closest.
DOWN_AFTER_S: Final = 0.13
PITCH: Final = slice(1, 4)


@dataclass(frozen=True, slots=True)
class Manner:
    """How the ring comes down: the lowest height, and its time after the closest approach."""

    down_m: float
    down_after_s: float


USUAL: Final = Manner(DOWN_M, DOWN_AFTER_S)
# Compensates for a learner that stops about 1 cm too high and is 0.015 s late: it presses the ring
# onto the table (demo/train.py).
FIRM: Final = Manner(-0.006, 0.115)


def time_to_go_s(puck_m: F64, velocity_m_s: F64) -> F64:
    """Return the time until the puck is closest to the workspace centre, in s.

    Position and velocity have shape [..., 2], the result [...]. It is negative after the approach.
    """
    speed2 = np.sum(velocity_m_s**2, axis=-1)
    ahead = np.sum((CENTRE_M - puck_m) * velocity_m_s, axis=-1)
    return np.asarray(ahead / np.maximum(speed2, 1e-4))


def ring_target(puck_m: F64, velocity_m_s: F64, manner: Manner = USUAL) -> F64:
    """Return where the ring should be now, in m: above the puck's closest point.

    Its height falls linearly with the time to go. Inputs have shape [..., 2], the result [..., 3].
    """
    to_go = np.clip(time_to_go_s(puck_m, velocity_m_s), -1.5, 3.0)
    aim = puck_m + velocity_m_s * to_go[..., None]
    offset = aim - CENTRE_M
    distance = np.linalg.norm(offset, axis=-1, keepdims=True)
    aim = CENTRE_M + offset * np.minimum(1.0, 0.17 / np.maximum(distance, 1e-6))
    ramp = DOWN_M + (HOVER_M - DOWN_M) / DESCENT_S * (to_go + manner.down_after_s)
    return np.concatenate([aim, np.clip(ramp, manner.down_m, HOVER_M)[..., None]], axis=-1)


def captured(ring_m: F64, puck_m: F64) -> npt.NDArray[np.bool_]:
    """Whether the puck lies inside a ring that is down.

    The ring has shape [..., 3], the puck [..., 2] and the result [...].
    """
    return _around(ring_m, puck_m, LOW_M)


def _around(ring_m: F64, puck_m: F64, below_m: float) -> npt.NDArray[np.bool_]:
    near = np.linalg.norm(ring_m[..., :2] - puck_m, axis=-1) < INSIDE_M
    return np.asarray(near & (ring_m[..., 2] < below_m))


def rollout(
    command_rad: F64, puck_m: F64, velocity_m_s: F64, steps: int, manner: Manner = USUAL
) -> F64:
    """Return the commands of the next `steps` steps for a puck that keeps its velocity.

    `command_rad` has shape [..., 5] and is the first command; the puck's arrays have [..., 2] and
    the result [..., steps, 5]. The commands respect the arm's speed limits. Once the ring is around
    the puck, it goes straight down and stays, even if the puck bounces inside. A policy could not
    learn from a teacher that reconsidered this in each step.
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
    """Return the command one step (`STEP_S`) closer to the target; all have shape [..., 5]."""
    move = target_rad - command_rad
    excess = np.abs(move) / (arm.VELOCITY_LIMIT_RAD_S * STEP_S)
    # The pitch joints share one scale, so that the ring keeps its height. Yaw and roll do not
    # change it.
    excess[..., PITCH] = np.max(excess[..., PITCH], axis=-1, keepdims=True)
    return np.asarray(command_rad + move / np.maximum(excess, 1.0))
