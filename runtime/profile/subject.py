"""What is profiled: a bundle, the robot.yaml of the run, and how its engines are loaded."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

from runtime.config.robot_yaml import RunConfig
from runtime.control.notes import RobotKind
from runtime.engines import load
from runtime.engines.base import EngineFactory
from runtime.policy.graphs import refuse_released
from v2a.bundle import Bundle, Manifest
from v2a.config import load_yaml

_WIDEST_RAD: Final = 3.1  # just below pi, as a servo turns once around
_FASTEST_RAD_S: Final = 5.0


@dataclass(frozen=True, slots=True)
class Subject:
    """The bundle, robot and engines of a measurement.

    A real robot is read with its torque off. A virtual robot moves.
    """

    bundle: Bundle
    config: RunConfig
    robot: RobotKind
    engine: str = "ort"
    threads: int = 1

    def engines(self) -> EngineFactory:
        """Return the factory that loads each graph with the chosen back end."""
        return partial(load, backend=self.engine, threads=self.threads)


def choose_subject(
    bundle: Bundle, robot_yaml: Path | None, camera: str | None, engine: str, threads: int
) -> Subject:
    """Make the subject for the options of a command. Without `robot_yaml` the robot is virtual.

    Raises ConfigError for a faulty robot.yaml, BundleError for a released policy's bundle.
    """
    refuse_released(bundle)
    if robot_yaml is None:
        config = virtual_config(bundle.manifest, camera or "synthetic:")
        return Subject(bundle, config, "virtual", engine, threads)
    config = load_yaml(robot_yaml, RunConfig)
    if camera is not None:
        source = config.camera.model_copy(update={"source": camera})
        config = config.model_copy(update={"camera": source})
    return Subject(bundle, config, "real", engine, threads)


def virtual_config(manifest: Manifest, camera: str) -> RunConfig:
    """Make the configuration of a virtual robot with the bundle's joints and camera size."""
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
