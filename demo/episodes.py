"""Plays episodes in real time, with the runtime on the simulated robot's serial port and camera."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from demo.film import Film
from demo.plant import Result
from demo.simulator import Simulator
from demo.task import Level
from runtime.camera_worker import camera_of
from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import Message
from runtime.summary_model import RunSummary
from runtime.supervisor import Runtime
from runtime.workers import Workers, build_workers
from v2a.bundle import Bundle
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.spans import Tracer

ROBOT_YAML = Path(__file__).with_name("robot.yaml")
BUNDLE = Path(__file__).with_name("bundle")
CHECKPOINT = Path(__file__).with_name("policy.pt")

Progress = Callable[[int, Result], None]


@dataclass(slots=True)
class Delays:
    """Delays in ns from a picture's capture to the publication of each result."""

    system1: list[int] = field(default_factory=list)
    system2: list[int] = field(default_factory=list)
    camera: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """The results of a run of episodes."""

    config: RunConfig
    results: list[Result]
    films: list[Film]
    delays: Delays
    run: RunSummary


def config_for(port: str, camera_path: Path) -> RunConfig:
    """Return the configuration of `robot.yaml` with this port and camera socket."""
    config = load_yaml(ROBOT_YAML, RunConfig)
    bus = config.robot.bus.model_copy(update={"port": port})
    robot = config.robot.model_copy(update={"bus": bus})
    camera = config.camera.model_copy(update={"source": f"socket:{camera_path}"})
    return config.model_copy(update={"robot": robot, "camera": camera})


def run_episodes(
    bundle: Bundle,
    level: Level,
    seeds: range,
    progress: Progress,
    films: int = 0,
    record: Path | None = None,
) -> Session:
    """Play the episodes of `seeds` in order, and keep the pictures of the first `films`.

    Calls `progress(episodes done, result)` after each. Raises the V2AError of a failure, with
    torque off and the recording kept.
    """
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory() as folder:
        camera_path = Path(folder) / "camera"
        with Simulator.start(camera_path) as simulator:
            config = config_for(simulator.port, camera_path)
            camera = camera_of(config.camera, clock)
            workers = build_workers(bundle, "real", camera, config, clock, Tracer())
            runtime = Runtime(workers, record)
            delays = _watch_delays(workers)
            with runtime:
                results, played = _play_all(runtime, simulator, level, seeds, progress, films)
                runtime.disarm()
            return Session(config, results, played, delays, runtime.summary())


def _play_all(
    runtime: Runtime,
    simulator: Simulator,
    level: Level,
    seeds: range,
    progress: Progress,
    films: int,
) -> tuple[list[Result], list[Film]]:
    results: list[Result] = []
    played: list[Film] = []
    for number, seed in enumerate(seeds):
        runtime.disarm()  # the simulator moves the arm to its start
        simulator.set_scene(seed, level)
        runtime.reset()
        runtime.arm()
        ended = simulator.play(keep_pictures=number < films)
        runtime.wait(0.0)
        results.append(ended.result)
        if ended.pictures:
            played.append((ended.result, ended.pictures))
        progress(number + 1, ended.result)
    return results, played


def _watch_delays(workers: Workers) -> Delays:
    delays, boxes = Delays(), workers.mailboxes

    def into(delays_ns: list[int]) -> Callable[[Message], None]:
        return lambda message: delays_ns.append(message.t_publish_ns - message.t_capture_ns)

    boxes.chunk.taps.append(into(delays.system1))
    boxes.condition.taps.append(into(delays.system2))
    boxes.frame.taps.append(into(delays.camera))
    return delays
