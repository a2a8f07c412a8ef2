"""The arm's geometry: against itself, its limits, and MuJoCo."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from demo import arm
from demo.arm import F64
from demo.physics import World

REACHABLE = st.builds(
    lambda radius, bearing, z: np.array([radius * np.cos(bearing), radius * np.sin(bearing), z]),
    st.floats(0.17, 0.45),
    st.floats(-1.5, 1.5),
    st.floats(0.0, 0.07),
)
ANYWHERE = st.builds(lambda *xyz: np.array(xyz), *[st.floats(-1, 1)] * 3)


@given(REACHABLE)
def test_the_joints_for_a_place_put_the_level_ring_there(position_m: F64) -> None:
    joints = arm.joints_for_ring(position_m)
    np.testing.assert_allclose(arm.ring_position(joints), position_m, atol=1e-9)
    assert joints[1:4].sum() == pytest.approx(0.0, abs=1e-12)  # level
    assert joints[4] == 0.0


@given(ANYWHERE)
def test_the_joints_are_within_their_limits_wherever_the_place_is(position_m: F64) -> None:
    joints = arm.joints_for_ring(position_m)
    assert np.all(joints >= arm.LOWER_RAD)
    assert np.all(joints <= arm.UPPER_RAD)


def test_out_of_reach_stretches_towards_the_place() -> None:
    ring = arm.ring_position(arm.joints_for_ring(np.array([0.6, 0.6, 0.10])))
    assert ring[0] == pytest.approx(ring[1])
    reach = arm.UPPER_M + arm.FORE_M + arm.HAND_M
    assert np.hypot(*ring[:2]) == pytest.approx(reach, abs=1e-3)


def test_many_places_at_once_are_as_one_by_one() -> None:
    places = np.random.default_rng(0).uniform((0.2, -0.2, 0.0), (0.4, 0.2, 0.07), (3, 4, 3))
    joints = arm.joints_for_ring(places)
    assert joints.shape == (3, 4, 5)
    np.testing.assert_array_equal(joints[2, 1], arm.joints_for_ring(places[2, 1]))
    np.testing.assert_array_equal(arm.ring_position(joints)[2, 1], arm.ring_position(joints[2, 1]))


def test_mujoco_has_the_ring_where_the_geometry_says() -> None:
    world = World()
    rng = np.random.default_rng(1)
    for joints in rng.uniform(arm.LOWER_RAD, arm.UPPER_RAD, (200, 5)):
        world.reset(joints, np.array([1.0, 1.0]), np.zeros(2))
        np.testing.assert_allclose(world._data.site("ring").xpos, world.ring_m, atol=1e-12)
