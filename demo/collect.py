"""Collects training episodes: images, the arm's states, and the teacher's chunk from each state.

Undisturbed demonstrations would teach a policy to read the target off the arm's own pose. So most
episodes are disturbed by unusual start poses, noise on the commands, and detours in which the arm
freezes, wanders or crawls. The teacher labels every state, whatever the arm did before.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

from demo import arm, expert, task
from demo.arm import F64
from demo.physics import PHYSICS_STEP_S, World
from demo.picture import HALF_VIEW_M, Painter
from runtime.camera_worker import resized

PIXELS: Final = 96
CHUNK: Final = 16
GONE_S: Final = -0.4  # the puck is lost if its closest approach was longer ago than this
SUBSTEPS: Final = round(expert.STEP_S / PHYSICS_STEP_S)
TICK_RAD: Final = 2 * np.pi / 4096
STEPS: Final = task.WARM_UP_STEPS + max(task.EPISODE_STEPS.values())
FIELDS: Final = {
    "image": ((PIXELS, PIXELS, 3), np.uint8),
    "position_rad": ((5,), np.float32),
    "command_rad": ((5,), np.float32),
    "puck": ((4,), np.float32),
    "chunk_rad": ((CHUNK, 5), np.float32),
    "valid": ((), np.bool_),
    "steady": ((), np.bool_),
}

# A driver maps (step, world, command [5], image [H, W, 3]) to the next command [5].
Driver = Callable[[int, World, F64, npt.NDArray[np.uint8]], F64]
Watch = Callable[[npt.NDArray[np.uint8]], None]


@dataclass(frozen=True, slots=True)
class Outcome:
    """An episode: one array [steps, ...] per field of `FIELDS`, and whether it succeeded."""

    arrays: dict[str, npt.NDArray[np.generic]]
    success: bool


def play(
    scenario: task.Scenario, driver: Driver, rng: np.random.Generator, watch: Watch | None = None
) -> Outcome:
    """Play one episode, with commands interpolated between steps as in the control loop.

    The driver is called after the warm-up, `watch` with every image.
    """
    world, painter = World(), Painter(rng)
    world.reset(scenario.joints_rad, scenario.puck_m, scenario.puck_velocity_m_s)
    command = setpoint = scenario.joints_rad
    rows: list[dict[str, npt.ArrayLike]] = []
    kicked = False
    for step in range(scenario.steps):
        image = resized(painter.draw(world.joints_rad, world.puck_m), (PIXELS, PIXELS))
        if watch is not None:
            watch(image)
        rows.append(_row(step, image, world, command))
        target = driver(step, world, command, image) if step >= task.WARM_UP_STEPS - 1 else command
        for i in range(SUBSTEPS):
            if not kicked and world.time_s >= scenario.kick_s:
                world.kick_puck(scenario.kick_velocity_m_s)
                kicked = True
            goal = (
                np.round((command + (target - command) * (i + 1) / SUBSTEPS) / TICK_RAD) * TICK_RAD
            )
            limit = arm.VELOCITY_LIMIT_RAD_S * PHYSICS_STEP_S
            setpoint = setpoint + np.clip(goal - setpoint, -limit, limit)
            world.step(setpoint)
        command = target
    arrays = {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}
    puck = arrays["puck"]
    arrays["chunk_rad"] = expert.rollout(arrays["command_rad"], puck[:, :2], puck[:, 2:], CHUNK)
    captured = expert.captured(arm.ring_position(arrays["position_rad"]), puck[:, :2])
    # States without a right answer are not taught: the puck has left and was not caught.
    to_go_s = expert.time_to_go_s(puck[:, :2], puck[:, 2:])
    arrays["valid"] &= captured | ((to_go_s > GONE_S) & _in_picture(puck))
    arrays["steady"] = _steady(puck) & _in_picture(puck) & ~captured
    return Outcome(arrays, task.success(world.ring_m, world.puck_m) and not world.knocked)


def _row(
    step: int, image: npt.NDArray[np.uint8], world: World, command: F64
) -> dict[str, npt.ArrayLike]:
    return {
        "image": image,
        "position_rad": np.round(world.joints_rad / TICK_RAD) * TICK_RAD,
        "command_rad": command,
        "puck": np.concatenate([world.puck_m, world.puck_velocity_m_s]),
        "valid": step >= task.WARM_UP_STEPS - 1 and not world.knocked,
    }


def _in_picture(puck: F64) -> npt.NDArray[np.bool_]:
    return np.asarray(np.abs(puck[:, :2] - expert.CENTRE_M).max(axis=1) < HALF_VIEW_M - 0.02)


def _steady(puck: F64) -> npt.NDArray[np.bool_]:
    """Find the steps, bool [steps], at which a whole clip shows a constant velocity."""
    changed = np.linalg.norm(np.diff(puck[:, 2:], axis=0, prepend=puck[:1, 2:]), axis=1) > 0.01
    since = np.convolve(changed, np.ones(task.CLIP_STEPS))[: len(changed)]
    return np.asarray(since < 0.5)


def teacher(step: int, world: World, command: F64, image: npt.NDArray[np.uint8]) -> F64:
    """Return the expert's next command [5]; a `Driver` that ignores the image [H, W, 3]."""
    return np.asarray(expert.rollout(command, world.puck_m, world.puck_velocity_m_s, 2)[1])


def limited(driver: Driver) -> Driver:
    """Wrap a driver so that its commands respect the arm's speed and range."""

    def drive(step: int, world: World, command: F64, image: npt.NDArray[np.uint8]) -> F64:
        """Return the limited command [5]; `command` is [5] and `image` [H, W, 3]."""
        limit = arm.VELOCITY_LIMIT_RAD_S * expert.STEP_S
        move = np.clip(driver(step, world, command, image) - command, -limit, limit)
        return np.asarray(np.clip(command + move, arm.LOWER_RAD, arm.UPPER_RAD))

    return drive


class Disturbed:
    """The expert with noise on its commands, held for several steps, and optional detours."""

    def __init__(self, rng: np.random.Generator, detours: bool) -> None:
        self._rng, self._detours = rng, detours
        self._noise_rad = np.zeros(5)
        self._left = 0
        self._detour = 0
        self._target = np.zeros(5)

    def __call__(self, step: int, world: World, command: F64, image: npt.NDArray[np.uint8]) -> F64:
        rng = self._rng
        if rng.random() < 0.25:
            self._noise_rad = np.zeros(5) if rng.random() < 0.3 else rng.normal(0, 0.012, 5)
            self._noise_rad[4] = 0.0
        if self._detours and self._left == 0 and rng.random() < 0.07:
            self._left, self._detour = int(rng.integers(3, 11)), int(rng.integers(4))
            self._target = arm.joints_for_ring(random_ring(rng))
        planned = teacher(step, world, command, image)
        limit = arm.VELOCITY_LIMIT_RAD_S * expert.STEP_S
        if self._left > 0:
            self._left -= 1
            wander = command + np.clip(self._target - command, -limit, limit)
            noisy = planned + 3 * self._noise_rad
            planned = (command, wander, command + 0.3 * (planned - command), noisy)[self._detour]
        return planned + self._noise_rad


def random_ring(rng: np.random.Generator) -> F64:
    """Draw a position [3] in m for the ring above the workspace."""
    x, y = expert.CENTRE_M + rng.uniform(-0.15, 0.15, 2)
    return np.array([x, y, rng.uniform(0.015, 0.07)])


def disturbed_episode(seed: int) -> Outcome:
    """Play the training episode of `seed`.

    Half of the episodes have noise only, half also detours. Half of the latter start from an
    unusual pose.
    """
    rng = np.random.default_rng([seed, 77])
    level: task.Level = "rebound" if rng.random() < 0.4 else "puck"
    scenario = task.scenario(TRAINING_SEEDS + seed, level)
    detours = rng.random() < 0.5
    if detours and rng.random() < 0.5:
        odd = arm.joints_for_ring(random_ring(rng))
        scenario = task.replace_start(scenario, odd)
    return play(scenario, limited(Disturbed(rng, detours)), rng)


# Training uses scenario seeds from here on. Evaluation counts from zero and stays below.
TRAINING_SEEDS: Final = 1_000_000


def collect(folder: Path, count: int, workers: int, episode: Callable[[int], Outcome]) -> None:
    """Play `count` episodes and write one memory-mapped array per field, [count, STEPS, ...].

    `folder` appears only when all are written.
    """
    part = folder.with_name(folder.name + ".part")
    part.mkdir(parents=True, exist_ok=True)
    arrays = {
        name: np.lib.format.open_memmap(part / f"{name}.npy", "w+", dtype, (count, STEPS, *shape))
        for name, (shape, dtype) in FIELDS.items()
    }
    for name in arrays:  # reserve the space: on a full disk, writing would kill the process
        with (part / f"{name}.npy").open("r+b") as file:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
    successes = 0
    with ProcessPoolExecutor(workers) as pool:
        for i, outcome in enumerate(pool.map(episode, range(count), chunksize=4)):
            successes += outcome.success
            for name, values in outcome.arrays.items():
                arrays[name][i, : len(values)] = values
            if (i + 1) % 100 == 0:
                print(f"collected {i + 1}/{count} episodes, {successes} successes", flush=True)
    part.rename(folder)
