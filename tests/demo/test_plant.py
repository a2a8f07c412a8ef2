"""The simulated robot from its wires: bytes in, a moving arm, bytes out."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from demo import arm, expert, task
from demo.arm import F64
from demo.episodes import config_for
from demo.plant import Plant
from hw_drivers.dynamixel.models import RAD_PER_TICK
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from v2a.clock import FakeClock

TICKS_2_RAD = 2 * RAD_PER_TICK


class Bench:
    """A plant, a robot wired to it, and one clock for both."""

    def __init__(self) -> None:
        self.plant = Plant()
        self.clock = FakeClock()
        config = config_for("loopback", Path("unused")).robot
        self.robot = Robot(config, self.clock, LoopbackPort(self.plant.chain))
        self.robot.connect()

    def begin(self, scenario: task.Scenario) -> None:
        self.plant.reset(scenario)
        self._start_ns = self.clock.now_ns()

    def pass_s(self, seconds: float) -> F64:
        """Let time pass as a control loop does, and read the joints."""
        self.clock.advance_ns(round(seconds * 1e9))
        self.plant.advance((self.clock.now_ns() - self._start_ns) / 1e9)
        return self.robot.read_state().position_rad


@pytest.fixture
def bench() -> Bench:
    bench = Bench()
    bench.begin(task.scenario(1))
    return bench


def follow(bench: Bench, goal_rad: F64, seconds: float) -> F64:
    """Ask for `goal_rad` and read the joints every 10 ms: [n, 5]."""
    readings = []
    for _ in range(round(seconds / 0.01)):
        bench.robot.write_goal(goal_rad)
        readings.append(bench.pass_s(0.01))
    return np.array(readings)


def test_the_arm_goes_where_it_is_sent(bench: Bench) -> None:
    goal = arm.joints_for_ring(np.array([0.33, 0.08, 0.03]))
    bench.robot.enable_torque()
    readings = follow(bench, goal, 1.5)
    np.testing.assert_allclose(readings[-1], goal, atol=TICKS_2_RAD)
    np.testing.assert_allclose(readings[-1], bench.plant.world.joints_rad, atol=TICKS_2_RAD)


def test_it_never_goes_faster_than_its_joints_may(bench: Bench) -> None:
    bench.robot.enable_torque()
    there = follow(bench, arm.UPPER_RAD, 0.5)
    back = follow(bench, arm.LOWER_RAD, 0.5)
    moved = np.abs(np.diff(np.concatenate([there, back]), axis=0))
    assert moved.max() > 0.005  # it did move
    assert np.all(moved <= arm.VELOCITY_LIMIT_RAD_S * 0.01 + RAD_PER_TICK)


def test_without_torque_goals_move_nothing(bench: Bench) -> None:
    start = bench.robot.read_state().position_rad
    readings = follow(bench, arm.UPPER_RAD, 1.0)
    assert np.all(np.abs(readings - start) <= TICKS_2_RAD)


def test_torque_off_stops_it_on_the_way(bench: Bench) -> None:
    bench.robot.enable_torque()
    follow(bench, arm.UPPER_RAD, 0.3)
    bench.robot.disable_torque()
    bench.pass_s(0.1)
    stopped = bench.pass_s(0.1)
    assert np.all(np.abs(follow(bench, arm.UPPER_RAD, 0.5) - stopped) <= TICKS_2_RAD)


def test_an_arm_put_back_by_hand_stays_there_when_torque_comes_on(bench: Bench) -> None:
    bench.robot.enable_torque()
    follow(bench, arm.joints_for_ring(np.array([0.40, -0.1, 0.03])), 1.0)
    bench.robot.disable_torque()
    scenario = task.scenario(2)
    bench.begin(scenario)
    bench.robot.enable_torque()
    readings = np.array([bench.pass_s(0.01) for _ in range(30)])
    np.testing.assert_allclose(readings, np.tile(scenario.joints_rad, (30, 1)), atol=TICKS_2_RAD)


def test_the_puck_slides_and_is_kicked_when_the_scenario_says(bench: Bench) -> None:
    scenario = task.scenario(3, "rebound")
    bench.begin(scenario)
    bench.pass_s(scenario.kick_s - 0.01)
    before = bench.plant.world.puck_velocity_m_s
    np.testing.assert_allclose(before, scenario.puck_velocity_m_s, atol=1e-6)
    bench.pass_s(0.02)
    after = bench.plant.world.puck_velocity_m_s
    np.testing.assert_allclose(after, scenario.kick_velocity_m_s, atol=1e-6)


def test_time_passes_in_whole_physics_steps_however_it_is_cut() -> None:
    plants = [Plant(), Plant()]
    for plant in plants:
        plant.reset(task.scenario(4))
    for k in range(1, 201):
        plants[0].advance(k * 0.0013)
    plants[1].advance(200 * 0.0013)
    assert plants[0].world.time_s == plants[1].world.time_s
    np.testing.assert_array_equal(plants[0].world.puck_m, plants[1].world.puck_m)


def test_a_low_ring_beside_the_puck_knocks_it_and_the_episode_is_lost(bench: Bench) -> None:
    drawn = task.scenario(5)
    scenario = dataclasses.replace(drawn, puck_m=expert.CENTRE_M - 0.4 * drawn.puck_velocity_m_s)
    way = scenario.puck_velocity_m_s / np.linalg.norm(scenario.puck_velocity_m_s)
    ahead = scenario.puck_m + 0.14 * way
    joints = arm.joints_for_ring(np.array([*ahead, 0.004]))
    bench.begin(task.replace_start(scenario, joints))
    bench.robot.enable_torque()
    assert not bench.plant.result().knocked
    bench.pass_s(0.45)
    result = bench.plant.result()
    assert (result.seed, result.level) == (5, "puck")
    assert result.knocked
    assert not result.success


def test_a_ring_that_is_pressed_onto_the_table_stays_on_it(bench: Bench) -> None:
    goal = arm.joints_for_ring(np.array([*expert.CENTRE_M, expert.FIRM.down_m]))
    bench.begin(dataclasses.replace(task.scenario(6), puck_m=np.array([0.7, 0.7])))
    bench.robot.enable_torque()
    follow(bench, goal, 1.5)
    assert bench.plant.result().ring_m[2] == pytest.approx(0.0, abs=0.003)


def test_the_same_episode_has_the_same_pictures() -> None:
    def pictures(seed: int) -> bytes:
        plant = Plant()
        plant.reset(task.scenario(seed))
        plant.advance(0.1)
        return plant.picture().tobytes()

    assert pictures(6) == pictures(6)
    assert pictures(6) != pictures(7)
