"""Geometry of the demo arm: its joints, and the kinematics of the ring that it carries.

The arm stands at the origin, z up. Yaw turns it about z. Shoulder, elbow and wrist pitch in one
vertical plane, and a positive pitch raises the links behind it. Roll turns the hand about its own
axis. The hand carries an open ring whose centre is `HAND_M` in front of the wrist. With all angles
zero the arm is level along +x.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]

JOINTS: Final = ("yaw", "shoulder", "elbow", "wrist", "roll")
SHOULDER_HEIGHT_M: Final = 0.10
UPPER_M: Final = 0.18
FORE_M: Final = 0.18
RING_INNER_M: Final = 0.050
RING_WALL_M: Final = 0.008
RING_HEIGHT_M: Final = 0.012
HAND_M: Final = 0.12
LOWER_RAD: Final = np.array([-1.6, -0.6, -2.9, -1.6, -1.0])
UPPER_RAD: Final = np.array([1.6, 1.9, 0.0, 2.6, 1.0])
# A tenth to a fifth of what the servos could do, so that the arm must predict the puck's motion.
VELOCITY_LIMIT_RAD_S: Final = np.array([0.585, 0.845, 1.105, 1.105, 1.105])


def ring_position(joints_rad: F64) -> F64:
    """Return the centre of the ring's lower face in m.

    Joint angles have shape [..., 5], the result [..., 3].
    """
    yaw, shoulder, elbow, wrist, _ = np.moveaxis(joints_rad, -1, 0)
    fore = shoulder + elbow
    hand = fore + wrist
    reach = UPPER_M * np.cos(shoulder) + FORE_M * np.cos(fore) + HAND_M * np.cos(hand)
    height = SHOULDER_HEIGHT_M + UPPER_M * np.sin(shoulder) + FORE_M * np.sin(fore)
    height = height + HAND_M * np.sin(hand)
    return np.stack([reach * np.cos(yaw), reach * np.sin(yaw), height], axis=-1)


def joints_for_ring(position_m: F64) -> F64:
    """Return the joint angles that put the level ring at a position.

    Positions have shape [..., 3], the result [..., 5]. It is the two-link solution with the elbow
    up. The wrist keeps the hand level and roll is zero. If the position is out of reach, the arm
    stretches towards it.
    """
    x, y, z = np.moveaxis(np.asarray(position_m, dtype=np.float64), -1, 0)
    along = np.maximum(np.hypot(x, y) - HAND_M, 0.02)
    up = z - SHOULDER_HEIGHT_M
    distance = np.clip(np.hypot(along, up), 0.03, UPPER_M + FORE_M - 1e-4)
    cos_elbow = (distance**2 - UPPER_M**2 - FORE_M**2) / (2 * UPPER_M * FORE_M)
    elbow = -np.arccos(np.clip(cos_elbow, -1.0, 1.0))
    lift = np.arctan2(FORE_M * np.sin(-elbow), UPPER_M + FORE_M * np.cos(elbow))
    shoulder = np.arctan2(up, along) + lift
    joints = np.stack(
        [np.arctan2(y, x), shoulder, elbow, -shoulder - elbow, np.zeros_like(x)], axis=-1
    )
    return np.asarray(np.clip(joints, LOWER_RAD, UPPER_RAD))
