"""The demo's physics in MuJoCo: an arm of simple shapes with a ring, and a frictionless puck."""

from __future__ import annotations

import math
from typing import Final

import mujoco
import numpy as np

from demo import arm
from demo.arm import F64

PHYSICS_STEP_S: Final = 0.0025
PUCK_RADIUS_M: Final = 0.024
PUCK_HEIGHT_M: Final = 0.026
RING_SEGMENTS: Final = 16
# Between these distances of the centres of ring and puck, the puck is under the wall or touches it
# from outside. Contacts are soft, so a puck that bounces inside presses a little into the wall.
KNOCK_INNER_M: Final = arm.RING_INNER_M - PUCK_RADIUS_M + 0.004
# The corners of the wall's boxes stick out by 1 mm.
KNOCK_OUTER_M: Final = arm.RING_INNER_M + arm.RING_WALL_M + PUCK_RADIUS_M + 0.001


def _ring_geoms() -> str:
    """Return the boxes that form the ring, in the hand's frame, as MJCF."""
    middle = arm.RING_INNER_M + arm.RING_WALL_M / 2
    half_width = middle * np.tan(np.pi / RING_SEGMENTS) + 5e-4
    half_height = arm.RING_HEIGHT_M / 2
    rows = []
    for i in range(RING_SEGMENTS):
        angle = 2 * np.pi * i / RING_SEGMENTS
        x, y = arm.HAND_M + middle * np.cos(angle), middle * np.sin(angle)
        size = f"{arm.RING_WALL_M / 2} {half_width:.5f} {half_height}"
        rows.append(
            f'<geom type="box" class="ring" pos="{x:.5f} {y:.5f} {half_height}" '
            f'euler="0 0 {angle:.5f}" size="{size}"/>'
        )
    return "".join(rows)


def mjcf() -> str:
    """Return the scene as MJCF. The only contacts are ring to puck and ring to table."""
    joint = '<joint name="{}" axis="{}" damping="0.6" armature="0.02"/>'
    yaw, shoulder, elbow, wrist, roll = (
        joint.format(name, axis)
        for name, axis in zip(
            arm.JOINTS, ("0 0 1", "0 -1 0", "0 -1 0", "0 -1 0", "1 0 0"), strict=True
        )
    )
    servos = "".join(
        f'<position name="{name}" joint="{name}" kp="200" kv="8" forcerange="-20 20"/>'
        for name in arm.JOINTS
    )
    return f"""
<mujoco model="v2a-demo-arm">
  <compiler angle="radian" autolimits="true"/>
  <option timestep="{PHYSICS_STEP_S}" integrator="implicitfast" cone="elliptic"/>
  <default>
    <geom contype="0" conaffinity="0" density="400"/>
    <default class="ring"><geom contype="1" conaffinity="2" condim="1" solref="0.005 1"/></default>
    <default class="puck"><geom contype="2" conaffinity="1" condim="1" solref="0.005 1"/></default>
  </default>
  <worldbody>
    <geom name="table" type="plane" size="1 1 0.1" contype="2" conaffinity="1" condim="1"/>
    <body name="base" pos="0 0 0" gravcomp="1">
      <geom type="cylinder" size="0.04 0.05" pos="0 0 0.05"/>
      {yaw}
      <body name="upper" pos="0 0 {arm.SHOULDER_HEIGHT_M}" gravcomp="1">
        {shoulder}
        <geom type="capsule" fromto="0 0 0 {arm.UPPER_M} 0 0" size="0.018"/>
        <body name="fore" pos="{arm.UPPER_M} 0 0" gravcomp="1">
          {elbow}
          <geom type="capsule" fromto="0 0 0 {arm.FORE_M} 0 0" size="0.015"/>
          <body name="hand" pos="{arm.FORE_M} 0 0" gravcomp="1">
            {wrist}
            <geom type="capsule" fromto="0 0 0 0.055 0 0" size="0.010"/>
            <body name="ring" gravcomp="1">
              {roll}
              <geom type="capsule" fromto="0.055 0 0.006 0.062 0 0.006" size="0.006"/>
              <site name="ring" pos="{arm.HAND_M} 0 0"/>
              {_ring_geoms()}
            </body>
          </body>
        </body>
      </body>
    </body>
    <body name="puck" pos="0 0 {PUCK_HEIGHT_M / 2}">
      <joint name="puck_x" type="slide" axis="1 0 0"/>
      <joint name="puck_y" type="slide" axis="0 1 0"/>
      <geom type="cylinder" size="{PUCK_RADIUS_M} {PUCK_HEIGHT_M / 2}" mass="0.03" class="puck"/>
    </body>
  </worldbody>
  <actuator>{servos}</actuator>
</mujoco>"""


class World:
    """The simulated table with the arm, its ring and a puck. Units are rad, m and m/s.

    Joints have the order of `arm.JOINTS`. The position loops of the servos follow setpoints, which
    come from virtual servos or, during data collection, directly from the teacher.
    """

    def __init__(self) -> None:
        self._model = mujoco.MjModel.from_xml_string(mjcf())
        self._data = mujoco.MjData(self._model)
        self._knocked = False

    def reset(self, joints_rad: F64, puck_m: F64, puck_velocity_m_s: F64) -> None:
        """Place the arm at rest at `joints_rad` [5], and the moving puck at `puck_m` [2]."""
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = np.concatenate([joints_rad, puck_m])
        self._data.qvel[5:] = puck_velocity_m_s
        self._data.ctrl[:] = joints_rad
        self._knocked = False
        mujoco.mj_forward(self._model, self._data)

    def step(self, setpoint_rad: F64) -> None:
        """Advance by `PHYSICS_STEP_S` with the servos at `setpoint_rad` [5]."""
        self._data.ctrl[:] = setpoint_rad
        mujoco.mj_step(self._model, self._data)
        self._knocked = self._knocked or self._knocks()

    def _knocks(self) -> bool:
        """Whether the wall of a low ring touches the puck from outside or from above."""
        x, y, z = self._data.site_xpos[0]
        if z > PUCK_HEIGHT_M:
            return False
        away = math.hypot(x - self._data.qpos[5], y - self._data.qpos[6])
        return KNOCK_INNER_M < away < KNOCK_OUTER_M

    @property
    def knocked(self) -> bool:
        """Whether the ring has hit the puck from outside or above, so the episode has failed."""
        return self._knocked

    def kick_puck(self, velocity_m_s: F64) -> None:
        """Give the puck a new velocity [2] instantly, like a hidden flipper."""
        self._data.qvel[5:] = velocity_m_s

    @property
    def time_s(self) -> float:
        return float(self._data.time)

    @property
    def joints_rad(self) -> F64:
        """Joint angles [5]."""
        return np.array(self._data.qpos[:5])

    @property
    def puck_m(self) -> F64:
        """Position of the puck [2]."""
        return np.array(self._data.qpos[5:])

    @property
    def puck_velocity_m_s(self) -> F64:
        """Velocity of the puck [2]."""
        return np.array(self._data.qvel[5:])

    @property
    def ring_m(self) -> F64:
        """Centre of the ring's lower face [3]."""
        return arm.ring_position(self.joints_rad)
