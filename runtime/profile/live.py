"""A measured run: engines alone, then everything at once, recorded; the profile is made of both.
Then everything again, more shortly, to see how much one run differs from the next."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import numpy as np

from hw_drivers.cameras.camera import open_camera
from runtime.config.robot_yaml import RunConfig
from runtime.control.notes import RobotKind
from runtime.engines import load
from runtime.engines.base import EngineFactory
from runtime.policy.graphs import SUPPLIED
from runtime.profile import machine
from runtime.profile.budgets import Budgets
from runtime.profile.from_recording import profile_of
from runtime.profile.isolated import Alone, engines_alone
from runtime.profile.jetson import Sampler, is_jetson
from runtime.profile.layers import layers_of
from runtime.profile.statistics import typical
from runtime.recording.reader import Recording
from runtime.supervisor import Runtime
from runtime.workers import Workers, build_workers
from v2a.bundle import Bundle, Manifest
from v2a.clock import Clock, MonotonicClock
from v2a.errors import CameraEnded
from v2a.spans import COLUMNS, Tracer
from v2a.terminal import Bar

REPEATS: Final = 3
SAMPLE_S: Final = 0.5  # between two readings of the board
_WIDEST_RAD: Final = 3.1  # a servo has one turn
_FASTEST_RAD_S: Final = 5.0

Profile = dict[str, Any]
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured. A real robot is read, with its torque off; a virtual one is moved."""

    bundle: Bundle
    config: RunConfig
    robot: RobotKind
    engine: str = "ort"
    threads: int = 1

    def engines(self) -> EngineFactory:
        return partial(load, backend=self.engine, threads=self.threads)


def virtual_config(manifest: Manifest, camera: str) -> RunConfig:
    """A robot.yaml for a robot that is not there, with the joints and the camera of the bundle."""
    view, step = manifest.cameras[0], manifest.action_space
    joints = [
        {
            "name": joint.name,
            "id": number,
            "model": "xl430-w250",
            "lower_rad": max(joint.lower, -_WIDEST_RAD),
            "upper_rad": min(joint.upper, _WIDEST_RAD),
            "velocity_limit_rad_s": min(joint.velocity_limit, _FASTEST_RAD_S),
        }
        for number, joint in enumerate(step.joints, start=1)
    ]
    bus = {"protocol": "dynamixel2", "port": "none", "baud": 1_000_000}
    fps = 1 / view.interval_s
    return RunConfig.model_validate(
        {
            "robot": {"name": "virtual", "bus": bus, "joints": joints},
            "camera": {"source": camera, "fps": fps, "width": view.width, "height": view.height},
            "instruction": next(iter(manifest.instructions)),
        }
    )


def measure(subject: Subject, seconds: float, folder: Path, budgets: Budgets | None) -> Profile:
    """Measure `subject` for `seconds` and record it into `folder`, which is new.

    Raises what `v2a run` raises; the end of a video just ends the run.
    """
    facts = machine.facts()
    clock = MonotonicClock()
    with progress("engines alone, twice each", len(SUPPLIED)) as step:
        alone = engines_alone(
            subject.bundle,
            subject.config.instruction,
            subject.engines(),
            clock,
            lambda graph: step(1),
        )
    with progress("layers", 1):
        feeds = {graph: found.feeds for graph, found in alone.items()}
        layers = layers_of(subject.bundle, subject.engines(), feeds)
    aside = _run(subject, seconds, folder, clock, "the whole run")
    profile = profile_of(Recording(folder), budgets)
    return profile | _measured(alone, profile) | {
        "engine": subject.engine,
        "options": {"threads": subject.threads},
        "machine": profile["machine"] | facts,
        "layers": layers,
        "repeats": _repeats(subject, seconds / REPEATS, clock),
        **aside,
    }  # fmt: skip


def _repeats(subject: Subject, seconds: float, clock: Clock) -> dict[str, list[float]]:
    """Stage or age -> its typical ms in each of `REPEATS` more runs, from new processes to loaded
    engines: what one run can't see is how much the next one differs."""
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, 1 + REPEATS):
            place = Path(folder) / str(number)
            _run(subject, seconds, place, clock, f"again, {number} of {REPEATS}")
            for name, samples in profile_of(Recording(place))["samples"].items():
                if samples:
                    found.setdefault(name, []).append(typical(np.array(samples)))
    return found


def of_recording(path: Path, budgets: Budgets | None) -> Profile:
    """The same picture of a run that is over, less what only a measured run can have."""
    profile = profile_of(Recording(path), budgets)
    nothing: Profile = {"memory": {}, "layers": {}, "options": {}, "repeats": {}}
    unknown = dict.fromkeys(("engine", "device", "others_cores", "yardstick_ms"))
    return nothing | unknown | profile | _measured({}, profile)


def _measured(alone: dict[str, Alone], profile: Profile) -> Profile:
    """Engines alone beside the same stages of the whole run."""
    nothing: Profile = {"alone": None, "overhead_ms": None}
    engines = {
        graph: (alone[graph].as_json() if graph in alone else nothing)
        | {"under_load": {name: profile["stages"][graph][name] for name in COLUMNS}}
        for graph in SUPPLIED
        if graph in profile["stages"]
    }
    floor = {graph: found.floor.as_json() for graph, found in alone.items()}
    return {"engines": engines, "noise_floor": floor}


def _run(subject: Subject, seconds: float, folder: Path, clock: Clock, label: str) -> Profile:
    """Everything at once, recorded into `folder`. Returns what is not in the recording."""
    workers = _workers(subject, clock)
    board = Sampler() if is_jetson() else None
    with Runtime(workers, folder) as runtime:
        if subject.robot == "virtual":
            runtime.arm()
        meanwhile = machine.Meanwhile(clock)
        try:
            _watch(runtime, seconds, meanwhile, board, label)
        except CameraEnded as ended:
            click.echo(f"{ended}: the run is shorter than asked for", err=True)
        aside = meanwhile.summary()
    return aside | {"device": board.summary() if board else None}


def _workers(subject: Subject, clock: Clock) -> Workers:
    config = subject.config
    size = (config.camera.width, config.camera.height)
    camera = open_camera(config.camera.source, size, config.camera.fps, clock)
    try:
        return build_workers(
            subject.bundle, subject.robot, camera, config, clock, Tracer(), subject.engines()
        )
    except BaseException:
        camera.close()
        raise


def _watch(
    runtime: Runtime,
    seconds: float,
    meanwhile: machine.Meanwhile,
    board: Sampler | None,
    label: str,
) -> None:
    with progress(label, round(seconds * 1e3)) as step:
        while (left_s := seconds - meanwhile.seconds) > 0:
            meanwhile.sample()
            if board is not None:
                board.sample(meanwhile.seconds)
            runtime.wait(min(left_s, SAMPLE_S))
            step(round(min(left_s, SAMPLE_S) * 1e3))


@contextmanager
def progress(label: str, length: int) -> Iterator[Progress]:
    """A bar on a terminal's stderr, a plain line elsewhere."""
    with Bar(label, length) as bar:
        if not bar.in_place:
            click.echo(label, err=True)
        yield bar.advance
