"""The table of workers, and the function that builds them from a bundle and a robot.

To add a worker, add a row to `WORKERS`. Its `loop` is what the thread runs. The other columns set
how the thread is scheduled and when it ends. `Runtime` starts the rows as threads, and `Lockstep`
runs them on a virtual clock.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, NamedTuple

from hw_drivers.cameras.camera import Camera
from hw_drivers.robot.robot import Robot
from runtime.camera_worker import CameraWorker
from runtime.config.robot_yaml import RunConfig
from runtime.control.client import END_S, ControlClient
from runtime.control.loop import Control
from runtime.control.notes import RobotKind
from runtime.engines.base import EngineFactory, load
from runtime.fit import check_fit, check_units
from runtime.mailbox import Mailbox, Mailboxes
from runtime.policy.graphs import PolicyGraphs
from runtime.policy.system1 import System1
from runtime.policy.system2 import System2
from runtime.recording.messages import RunCounters
from runtime.recording.recorder import RATE_HZ, Recorder, record_loop
from runtime.threads import JOIN_S, Loop, Worker, step_on_news
from v2a.bundle import Bundle
from v2a.clock import Clock
from v2a.spans import Tracer


@dataclass(frozen=True, slots=True)
class Workers:
    """All parts of a run, connected but not started. `Runtime` or `Lockstep` starts them."""

    config: RunConfig
    bundle: Bundle
    clock: Clock
    tracer: Tracer
    mailboxes: Mailboxes
    graphs: PolicyGraphs
    camera: CameraWorker
    system2: System2
    system1: System1
    control: Control | ControlClient
    seed: int

    def prepare(self) -> None:
        """Warm the engines, encode the instruction, and connect the robot with torque off."""
        self.graphs.warm()
        self.camera.warm()
        self.set_instruction(self.config.instruction)
        self.control.open()

    def set_instruction(self, text: str) -> None:
        """Encode the instruction. Raises BundleError for a text that the bundle lacks."""
        self.graphs.set_instruction(text, self.tracer.ring("main"))

    def counters(self) -> RunCounters:
        """Return the current counters and the servos' health."""
        control = self.control
        return RunCounters(
            t_ns=self.clock.now_ns(),
            ticks=control.ticks,
            missed_ticks=dict(control.missed_ticks),
            counts=self.counts(),
            health=control.health,
            torque_fault=control.torque_fault,
            epoch=self.mailboxes.epoch.number,
        )

    def counts(self) -> dict[str, dict[str, int]]:
        """Return how often each event happened, by worker."""
        return {
            "control": dict(self.control.counts),
            "safety": dict(self.control.safety.counts),
            "system1": dict(self.system1.counts),
            "system2": dict(self.system2.counts),
            "camera": dict(self.camera.counts),
        }

    def close(self) -> None:
        """Turn the torque off, then close everything that was opened."""
        with ExitStack() as last_to_first:
            last_to_first.callback(self.graphs.close)
            last_to_first.callback(self.camera.close)
            last_to_first.callback(self.control.close)


class Wiring(NamedTuple):
    """A worker that is stepped when `inbox` has a newer message; its results go to `outbox`.

    Without an inbox the worker sets its own pace, as a camera does.
    """

    worker: Worker
    inbox: Mailbox[Any] | None
    outbox: Mailbox[Any]


@dataclass(frozen=True, slots=True)
class Stepping:
    """Makes the loop of a worker that has a `Wiring`."""

    wiring: Callable[[Workers], Wiring]

    def __call__(self, workers: Workers, recorder: Recorder) -> Loop:
        """Return the loop for the worker's thread."""
        return step_on_news(*self.wiring(workers), workers.clock)


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One row of the table: a worker, its loop and its thread.

    `rate_hz` is the highest rate that this configuration allows. `cores` are the CPU cores that the
    thread may use, None for all. A worker that `outlives` goes on when another one fails. At the
    end of the run a thread gets `ends_within_s`, then it is left behind.
    """

    name: str
    rate_hz: Callable[[RunConfig], float]
    loop: Callable[[Workers, Recorder], Loop]
    cores: Callable[[RunConfig], set[int] | None]
    nice: int = 0
    outlives: bool = False
    ends_within_s: Callable[[RunConfig], float] = lambda config: JOIN_S


def _off_controls_core(config: RunConfig) -> set[int] | None:
    """Return all cores except the core of the control process; None if it has no own core."""
    others = os.sched_getaffinity(0) - {config.control.core}
    return None if config.control.core is None or not others else others


def _record(workers: Workers, recorder: Recorder) -> Loop:
    return partial(record_loop, recorder, workers.counters)


def _control(workers: Workers, recorder: Recorder) -> Loop:
    return workers.control.run


def _control_ends_within_s(config: RunConfig) -> float:
    """Return the longest time that `ControlClient` takes: the safe pose, torque-off, process."""
    return config.safety.safe_pose_timeout_s + 3 * END_S + JOIN_S


# Started from top to bottom, stopped from bottom to top: torque goes off first. The control thread
# forwards packets to the control process, which has its own scheduling (`host.realtime`).
WORKERS: Final = (
    WorkerSpec(
        "recorder",
        rate_hz=lambda config: RATE_HZ,
        loop=_record,
        cores=_off_controls_core,
        nice=10,
        outlives=True,
    ),
    WorkerSpec(
        "camera",
        rate_hz=lambda config: config.camera.fps,
        loop=Stepping(lambda w: Wiring(w.camera, None, w.mailboxes.frame)),
        cores=_off_controls_core,
    ),
    WorkerSpec(
        "system2",
        rate_hz=lambda config: min(config.camera.fps, 1 / max(config.system2.period_s, 1e-9)),
        loop=Stepping(lambda w: Wiring(w.system2, w.mailboxes.frame, w.mailboxes.condition)),
        cores=_off_controls_core,
    ),
    WorkerSpec(
        "system1",
        rate_hz=lambda config: min(config.camera.fps, 1 / config.system1.period_s),
        loop=Stepping(lambda w: Wiring(w.system1, w.mailboxes.frame, w.mailboxes.chunk)),
        cores=_off_controls_core,
    ),
    WorkerSpec(
        "control",
        rate_hz=lambda config: config.control.rate_hz,
        loop=_control,
        cores=lambda config: None,
        ends_within_s=_control_ends_within_s,
    ),
)


def build_workers(
    bundle: Bundle,
    robot: Robot | RobotKind,
    camera: Camera,
    config: RunConfig,
    clock: Clock,
    tracer: Tracer,
    engines: EngineFactory = load,
    seed: int = 0,
) -> Workers:
    """Load the engines and connect the workers of one run. Touches neither robot nor camera.

    With a `RobotKind`, the control loop runs in its own process, which opens the robot. With a
    `Robot` that is not connected yet, it runs in this process, for simulation and tests. The
    workers own and close the robot, `camera` and the engines. `engines` makes the engine of each
    graph. `seed` and the epoch determine the sampler's noise.

    Raises ConfigError if robot and bundle do not fit together, and the errors of `PolicyGraphs`.
    """
    if robot != "virtual":  # a virtual robot may play a gripper's 0 to 1 as angles
        check_units(bundle.manifest)
    limits = check_fit(config, bundle.manifest)
    boxes = Mailboxes()
    rest = (limits, config, boxes, clock, tracer.ring("control"))
    control = Control(robot, *rest) if isinstance(robot, Robot) else ControlClient(robot, *rest)
    with ExitStack() as opened:
        opened.callback(control.close)
        graphs = PolicyGraphs(bundle, clock, engines)
        opened.pop_all()
    spec = bundle.manifest.cameras[0]
    return Workers(
        config=config,
        bundle=bundle,
        clock=clock,
        tracer=tracer,
        mailboxes=boxes,
        graphs=graphs,
        camera=CameraWorker(camera, spec, config.camera, boxes, clock, tracer.ring("camera")),
        system2=System2(graphs, boxes, config, tracer.ring("system2")),
        system1=System1(graphs, boxes, config, tracer.ring("system1"), seed),
        control=control,
        seed=seed,
    )
