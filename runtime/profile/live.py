"""Measures a bundle: each engine alone, its layers, then a whole run with a recording.

Three shorter runs follow. They show how much one run differs from the next.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import click
import numpy as np

from runtime.camera_worker import camera_of
from runtime.fit import check_fit
from runtime.policy.graphs import SUPPLIED
from runtime.profile.budgets import Budgets
from runtime.profile.from_recording import profile_of_recording
from runtime.profile.isolated import IsolatedEngine, measure_isolated
from runtime.profile.jetson import JetsonSampler, is_jetson
from runtime.profile.layers import measure_layers
from runtime.profile.machine import RunMonitor, Surroundings, describe_machine
from runtime.profile.statistics import typical
from runtime.profile.subject import Subject
from runtime.profile_model import Board, EngineTimes, Machine, Profile
from runtime.recording.reader import Recording
from runtime.supervisor import Runtime
from runtime.workers import Workers, build_workers
from v2a.clock import Clock, MonotonicClock
from v2a.errors import CameraEnded
from v2a.spans import Tracer
from v2a.terminal import Bar

REPEATS: Final = 3
SAMPLE_S: Final = 0.5  # between two readings of the board

Progress = Callable[[int], None]


class _Beside(NamedTuple):
    """What is measured during a run and is not in its recording."""

    surroundings: Surroundings
    board: Board | None


def measure(subject: Subject, seconds: float, folder: Path, budgets: Budgets | None) -> Profile:
    """Measure `subject` for `seconds` and record the run into `folder`, which must be new.

    Raises the errors of `v2a run`. The end of a video only ends the run early.
    """
    machine = describe_machine()
    clock = MonotonicClock()
    check_fit(subject.config, subject.bundle.manifest)
    camera_of(
        subject.config.camera, clock
    ).close()  # a missing camera is an error now, not a minute later
    with progress("engines alone, twice each", len(SUPPLIED)) as step:
        isolated = measure_isolated(
            subject.bundle,
            subject.config.instruction,
            subject.engines(),
            clock,
            lambda graph: step(1),
        )
    with progress("layers", 1):
        feeds = {graph: found.feeds for graph, found in isolated.items()}
        layers = measure_layers(subject.bundle, subject.engines(), feeds)
    beside = _run(subject, seconds, folder, clock, "the whole run")
    profile = profile_of_recording(Recording(folder), budgets)
    return profile.model_copy(
        update={
            "engine": subject.engine,
            "options": {"threads": subject.threads},
            "engines": _engines(profile, isolated),
            "noise_floor": {graph: found.noise_floor for graph, found in isolated.items()},
            "layers": layers,
            "machine": _with_versions(machine, profile.machine),
            "repeats": _repeats(subject, seconds / REPEATS, clock),
            "device": beside.board,
            **beside.surroundings._asdict(),
        }
    )


def _engines(profile: Profile, isolated: dict[str, IsolatedEngine]) -> dict[str, EngineTimes]:
    """The engines of `profile`, with the times while nothing else ran."""
    return {
        graph: EngineTimes(
            alone=isolated[graph].times,
            under_load=row.under_load,
            overhead_ms=isolated[graph].overhead_ms,
        )
        for graph, row in profile.engines.items()
    }


def _with_versions(machine: Machine, recorded: Machine) -> Machine:
    return machine.model_copy(update={"versions": recorded.versions, "realtime": recorded.realtime})


def _repeats(subject: Subject, seconds: float, clock: Clock) -> dict[str, tuple[float, ...]]:
    """Stage or age -> its typical time in ms in each of `REPEATS` more runs.

    Each run starts new processes and loads the engines again. One run cannot show how much the next
    one differs.
    """
    found: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for number in range(1, 1 + REPEATS):
            place = Path(folder) / str(number)
            _run(subject, seconds, place, clock, f"again, {number} of {REPEATS}")
            for name, samples in profile_of_recording(Recording(place)).samples.items():
                if samples:
                    found.setdefault(name, []).append(typical(np.array(samples)))
    return {name: tuple(values) for name, values in found.items()}


def _run(subject: Subject, seconds: float, folder: Path, clock: Clock, label: str) -> _Beside:
    """Run everything at once and record it into `folder`."""
    workers = _workers(subject, clock)
    board = JetsonSampler() if is_jetson() else None
    with Runtime(workers, folder) as runtime:
        if subject.robot == "virtual":
            runtime.arm()
        monitor = RunMonitor(clock)
        try:
            _watch(runtime, seconds, monitor, board, label)
        except CameraEnded as ended:
            click.echo(f"{ended}: the run is shorter than asked for", err=True)
        runtime.hurry()  # a virtual arm needs no safe pose
        for _, remark in workers.camera.report.remarks:
            click.echo(f"warning: {remark}", err=True)
        surroundings = monitor.summary()
    return _Beside(surroundings, board.summary() if board else None)


def _workers(subject: Subject, clock: Clock) -> Workers:
    camera = camera_of(subject.config.camera, clock)
    try:
        return build_workers(
            subject.bundle,
            subject.robot,
            camera,
            subject.config,
            clock,
            Tracer(),
            subject.engines(),
        )
    except BaseException:
        camera.close()
        raise


def _watch(
    runtime: Runtime,
    seconds: float,
    monitor: RunMonitor,
    board: JetsonSampler | None,
    label: str,
) -> None:
    with progress(label, round(seconds * 1e3)) as step:
        while (left_s := seconds - monitor.seconds) > 0:
            monitor.sample()
            if board is not None:
                board.sample(monitor.seconds)
            runtime.wait(min(left_s, SAMPLE_S))
            step(round(min(left_s, SAMPLE_S) * 1e3))


@contextmanager
def progress(label: str, length: int) -> Iterator[Progress]:
    """A bar on stderr if that is a terminal, else one line."""
    with Bar(label, length) as bar:
        if not bar.in_place:
            click.echo(label, err=True)
        yield bar.advance
