"""Plays the demo's task with full knowledge of its state: the teacher, and players that guess.

The table shows that the task needs the puck's velocity: the teacher, which knows it, succeeds, and
players that don't know it fail. Only the physics runs, without pictures and servos. Every plan
keeps the servos' speed limit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

import numpy as np

from demo import arm, expert, task
from demo.arm import F64
from demo.physics import PHYSICS_STEP_S, PUCK_HEIGHT_M, World

# (world, current command [5] rad, steps) -> commands [steps, 5] rad, the first is the current one.
Plan = Callable[[World, F64, int], F64]

SUBSTEPS: Final = round(expert.STEP_S / PHYSICS_STEP_S)
PARTS: Final = np.arange(1, SUBSTEPS + 1)[:, None] / SUBSTEPS
MEAN_SPEED_M_S: Final = float(np.mean(task.SPEED_M_S))
NEAR_M: Final = 0.05
DROP_WITHIN_M: Final = 0.12
SNATCH_HOVER_M: Final = PUCK_HEIGHT_M + 0.003
CHASE_DESCENT_M: Final = 0.0055  # per step


def teacher(world: World, command_rad: F64, steps: int) -> F64:
    """Plan as the expert does, with the true velocity. Commands are float64 [steps, 5] rad."""
    return expert.rollout(command_rad, world.puck_m, world.puck_velocity_m_s, steps)


def still(world: World, command_rad: F64, steps: int) -> F64:
    """Plan for a puck that lies still. Commands are float64 [steps, 5] rad."""
    return expert.rollout(command_rad, world.puck_m, np.zeros(2), steps)


def to_the_centre(world: World, command_rad: F64, steps: int) -> F64:
    """Plan for a puck that moves to the centre at mean speed: float64 [steps, 5] rad."""
    way = expert.CENTRE_M - world.puck_m
    velocity = MEAN_SPEED_M_S * way / max(float(np.linalg.norm(way)), 1e-3)
    return expert.rollout(command_rad, world.puck_m, velocity, steps)


def chase(world: World, command_rad: F64, steps: int) -> F64:
    """Hover above the puck and descend while near it. Commands are float64 [steps, 5] rad."""
    puck = world.puck_m

    def next_ring(ring: F64) -> F64:
        near = np.linalg.norm(ring[:2] - puck) < NEAR_M
        height = ring[2] - CHASE_DESCENT_M if near else expert.HOVER_M
        return np.array([*puck, max(height, expert.DOWN_M)])

    return _towards(next_ring, command_rad, steps)


def wait_at_the_centre(world: World, command_rad: F64, steps: int) -> F64:
    """Hover at the centre and drop when the puck is near: float64 [steps, 5] rad."""
    near = np.linalg.norm(world.puck_m - expert.CENTRE_M) < DROP_WITHIN_M
    ring = np.array([*expert.CENTRE_M, expert.DOWN_M if near else expert.HOVER_M])
    return _towards(lambda _: ring, command_rad, steps)


def snatch(share: float, near_m: float) -> Plan:
    """Make a plan that reacts instead of predicting.

    The ring hovers just above the puck's height, at `share` of the way from the centre to the puck.
    It drops when the puck is within `near_m`.
    """

    def plan(world: World, command_rad: F64, steps: int) -> F64:
        over = expert.CENTRE_M + share * (world.puck_m - expert.CENTRE_M)

        def next_ring(ring: F64) -> F64:
            if np.linalg.norm(ring[:2] - world.puck_m) < near_m:
                return np.array([*ring[:2], expert.DOWN_M])
            return np.array([*over, SNATCH_HOVER_M])

        return _towards(next_ring, command_rad, steps)

    return plan


def _towards(next_ring: Callable[[F64], F64], command_rad: F64, steps: int) -> F64:
    """Plan steps towards `next_ring(ring now)`, as the teacher moves the arm: [steps, 5] rad."""
    commands = [command_rad]
    for _ in range(steps - 1):
        wanted = arm.joints_for_ring(next_ring(arm.ring_position(commands[-1])))
        commands.append(expert.towards(wanted, commands[-1]))
    return np.stack(commands)


def count_successes(scenarios: Iterable[task.Scenario], plan: Plan, every: int) -> int:
    """Count the episodes that end with the puck in the ring. `plan` runs every `every` steps."""
    world = World()
    return sum(play(world, scenario, plan, every) for scenario in scenarios)


def play(world: World, scenario: task.Scenario, plan: Plan, every: int) -> bool:
    """Play one episode, and return whether it succeeded. A knocked puck ends it early."""
    world.reset(scenario.joints_rad, scenario.puck_m, scenario.puck_velocity_m_s)
    kick = _Kick(scenario)
    command = scenario.joints_rad
    planned: list[F64] = []
    for step in range(scenario.steps):
        target = command
        if step >= task.WARM_UP_STEPS:
            planned = planned or list(_plan_or_hold(world, plan, command, every))
            target = planned.pop(0)
        for setpoint in command + (target - command) * PARTS:
            kick(world)
            world.step(setpoint)
        command = target
        if world.knocked:
            return False
    return task.success(world.ring_m, world.puck_m)


class _Kick:
    """Kicks the puck once, at the scenario's time."""

    def __init__(self, scenario: task.Scenario) -> None:
        self._scenario = scenario
        self._done = False

    def __call__(self, world: World) -> None:
        if not self._done and world.time_s >= self._scenario.kick_s:
            world.kick_puck(self._scenario.kick_velocity_m_s)
            self._done = True


def _plan_or_hold(world: World, plan: Plan, command_rad: F64, steps: int) -> F64:
    """Return the next commands, [steps, 5] rad. An arm that has the puck stays where it is."""
    if expert.captured(world.ring_m, world.puck_m):
        return np.tile(command_rad, (steps, 1))
    return plan(world, command_rad, steps + 1)[1:]


PLAYERS: Final[dict[str, Plan]] = {
    "true velocity": teacher,
    '"it lies still"': still,
    '"it heads for the centre at mean speed"': to_the_centre,
    "hover above it, come down when near": chase,
    "wait at the centre, drop when it comes near": wait_at_the_centre,
    "low on the way to it, drop within 3 cm": snatch(0.7, 0.03),
    "low towards it, drop within 3 cm": snatch(1.0, 0.03),
    "low towards it, drop within 5 cm": snatch(1.0, 0.05),
}


def main() -> None:
    """Print the table of docs/demo.md: `python -m tools.oracles`."""
    scenarios = {
        level: [task.scenario(seed, level) for seed in range(100)] for level in task.LEVELS
    }
    print("| player, plans anew every 1 / 4 / 8 steps, success in % | `puck` | `rebound` |")
    print("|---|---|---|")
    for name, plan in PLAYERS.items():
        cells = [
            " / ".join(str(count_successes(drawn, plan, every)) for every in (1, 4, 8))
            for drawn in scenarios.values()
        ]
        print(f"| {name} | {cells[0]} | {cells[1]} |", flush=True)


if __name__ == "__main__":
    main()
