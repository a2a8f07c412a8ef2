"""Episodes in real time: the runtime and its control process on a serial port and a camera of the
simulated robot.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from demo.picture import U8
from demo.plant import Result
from demo.simulator import Simulator
from demo.task import Level
from hw_drivers.cameras.camera import open_camera
from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import Message
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
    """Nanoseconds from a picture's capture to the publication of what came of it."""

    system1: list[int] = field(default_factory=list)
    system2: list[int] = field(default_factory=list)
    camera: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Session:
    """What a run of episodes left behind."""

    results: list[Result]
    summary: dict[str, Any]
    delays: Delays
    films: list[tuple[Result, tuple[U8, ...]]]


def config_for(port: str, camera_path: Path) -> RunConfig:
    """`robot.yaml` on this port and this camera socket."""
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
    """Play the episodes of `seeds` one after the other; keep the pictures of the first `films`.

    Raises the V2AError of whatever failed; torque is off then, and the recording so far is kept.
    """
    clock = MonotonicClock()
    with tempfile.TemporaryDirectory() as folder:
        camera_path = Path(folder) / "camera"
        with Simulator.start(camera_path) as simulator:
            config = config_for(simulator.port, camera_path)
            size = (config.camera.width, config.camera.height)
            camera = open_camera(config.camera.source, size, config.camera.fps, clock)
            workers = build_workers(bundle, "real", camera, config, clock, Tracer())
            runtime = Runtime(workers, record)
            delays = _watch_delays(workers)
            with runtime:
                session = _play_all(runtime, simulator, level, seeds, progress, films, delays)
                runtime.disarm()
            session.summary = runtime.summary() | {
                "system1_period_s": config.system1.period_s,
                "system2_period_s": config.system2.period_s,
            }
    return session


def _play_all(
    runtime: Runtime,
    simulator: Simulator,
    level: Level,
    seeds: range,
    progress: Progress,
    films: int,
    delays: Delays,
) -> Session:
    session = Session([], {}, delays, [])
    for number, seed in enumerate(seeds):
        runtime.disarm()  # the arm is put back by hand
        simulator.set_scene(seed, level)
        runtime.reset()
        runtime.arm()
        ended = simulator.play(keep_pictures=number < films)
        runtime.wait(0.0)
        session.results.append(ended.result)
        if ended.pictures:
            session.films.append((ended.result, ended.pictures))
        progress(number + 1, ended.result)
    return session


def _watch_delays(workers: Workers) -> Delays:
    delays, boxes = Delays(), workers.mailboxes

    def into(delays_ns: list[int]) -> Callable[[Message], None]:
        return lambda message: delays_ns.append(message.t_publish_ns - message.t_capture_ns)

    boxes.chunk.taps.append(into(delays.system1))
    boxes.condition.taps.append(into(delays.system2))
    boxes.frame.taps.append(into(delays.camera))
    return delays
