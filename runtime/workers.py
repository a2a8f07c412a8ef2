"""THE table of workers, and how they are put together from a bundle and a robot."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from hw_drivers.cameras.camera import Camera
from hw_drivers.robot.robot import Robot
from runtime.camera_worker import CameraWorker
from runtime.config.robot_yaml import RunConfig
from runtime.control.client import ControlClient
from runtime.control.loop import Control
from runtime.control.notes import RobotKind
from runtime.engines.base import EngineFactory, load
from runtime.fit import check_fit
from runtime.mailbox import Mailboxes
from runtime.policy.graphs import PolicyGraphs
from runtime.policy.system1 import System1
from runtime.policy.system2 import StudyMode, System2
from v2a.bundle import Bundle
from v2a.clock import Clock
from v2a.spans import Tracer


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """One row. `inbox` and `output` are attributes of `Mailboxes`."""

    name: str
    what: str
    runs: str
    inbox: str | None  # it runs when this mailbox has something newer
    output: str | None
    nice: int


# Started from top to bottom, stopped from bottom to top.
WORKERS = (
    WorkerSpec("recorder", "writes down what happened", "twice a second", None, None, 10),
    WorkerSpec("camera", "captures and resizes", "each picture", None, "frame", 0),
    WorkerSpec("system2", "condition", "newer frame", "frame", "condition", 0),
    WorkerSpec("system1", "chunk of targets", "newer frame", "frame", "chunk", 0),
    WorkerSpec("control", "bus, safety, motors", "control.rate_hz grid", None, "state", 0),
)


@dataclass(frozen=True, slots=True)
class Workers:
    """Everything that runs, wired but still. `Runtime` or `Lockstep` sets it going."""

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
    study: StudyMode
    seed: int

    def table(self) -> tuple[WorkerSpec, ...]:
        """The rows that run by themselves: a synchronous System 2 is run by System 1."""
        synchronous = self.study.synchronous_every is not None
        return tuple(row for row in WORKERS if not (synchronous and row.name == "system2"))

    def prepare(self) -> None:
        """Warm the engines, compute the instruction, connect the robot with its torque off."""
        self.graphs.warm()
        self.camera.warm()
        self.set_instruction(self.config.instruction)
        self.control.open()

    def set_instruction(self, text: str) -> None:
        self.graphs.set_instruction(text, self.tracer.ring("main"))

    def close(self) -> None:
        """Torque off, then everything that was opened."""
        with ExitStack() as last_to_first:
            last_to_first.callback(self.graphs.close)
            last_to_first.callback(self.camera.close)
            last_to_first.callback(self.control.close)


def build_workers(
    bundle: Bundle,
    robot: Robot | RobotKind,
    camera: Camera,
    config: RunConfig,
    clock: Clock,
    tracer: Tracer,
    engines: EngineFactory = load,
    study: StudyMode = StudyMode(),  # noqa: B008  frozen, so it may be shared
    seed: int = 0,
) -> Workers:
    """Wire the workers of one run; loads the engines, touches neither robot nor camera.

    With a kind of `robot`, the control loop is a process of its own, which opens it. With a `Robot`
    (not yet connected) it stays in this process: for simulation and tests. The workers own the
    robot, `camera` and the engines from here on. `engines` makes the engine of each graph. `seed`
    and the epoch's number fix the sampler's noise.
    Raises ConfigError when robot and bundle don't fit, and what `PolicyGraphs` raises.
    """
    limits = check_fit(config, bundle.manifest)
    boxes = Mailboxes()
    with ExitStack() as opened:
        rest = (limits, config, boxes, clock, tracer.ring("control"))
        control = Control(robot, *rest) if isinstance(robot, Robot) else ControlClient(robot, *rest)
        opened.callback(control.close)
        graphs = PolicyGraphs(bundle, clock, engines)
        opened.pop_all()
    system2 = System2(graphs, boxes, config, tracer.ring("system2"), study)
    return Workers(
        config=config,
        bundle=bundle,
        clock=clock,
        tracer=tracer,
        mailboxes=boxes,
        graphs=graphs,
        camera=CameraWorker(
            camera, bundle.manifest.cameras[0], config.camera, boxes, clock, tracer.ring("camera")
        ),
        system2=system2,
        system1=System1(
            graphs,
            system2,
            boxes,
            config,
            clock,
            tracer.ring("system1"),
            study.synchronous_every,
            seed,
        ),
        control=control,
        study=study,
        seed=seed,
    )
