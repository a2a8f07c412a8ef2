"""`robot.yaml`: one robot, its camera, and the rates at which a bundle drives it."""

from __future__ import annotations

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hw_drivers.robot.robot import RobotConfig
from runtime.config.safety_yaml import SafetyConfig
from runtime.safety.motion_limiter import Limits
from v2a.bundle import Manifest
from v2a.config import Strict
from v2a.errors import ConfigError


class CameraConfig(Strict):
    """`source` as `hw_drivers.cameras.camera.open_camera` takes it."""

    source: str
    fps: PositiveFloat = 20.0
    width: PositiveInt = 640  # what a live camera is asked for; the policy's size is the bundle's
    height: PositiveInt = 480
    timeout_s: PositiveFloat = 2.0  # without a picture for so long, the camera has stopped


class ControlConfig(Strict):
    """The loop that owns the motors."""

    rate_hz: float = Field(default=50.0, gt=0.0, le=1000.0)
    blend_s: float = Field(default=0.1, ge=0.0)
    # Above the longest life of a chunk, so that a chunk can end and come to rest by itself.
    command_age_max_s: PositiveFloat = 2.0
    serial_faults_max: PositiveInt = 5
    core: NonNegativeInt | None = None  # which CPU core it has to itself; none: any
    require_rt: bool = False  # refuse to run without what `runtime.host.realtime` asks for


class System1Config(Strict):
    """How often a new chunk is made, and the spread of the noise that its sampler starts from: 1 as
    in training, 0 none.
    """

    period_s: PositiveFloat = 0.2
    noise_scale: float = Field(default=1.0, ge=0.0, le=1.0)


class System2Config(Strict):
    """How often a condition is made at most, and how old one may grow (see `System1`)."""

    period_s: float = Field(default=0.0, ge=0.0)
    soft_age_s: PositiveFloat = 1.0
    hard_age_s: PositiveFloat = 2.0

    @model_validator(mode="after")
    def _ordered(self) -> System2Config:
        if self.soft_age_s > self.hard_age_s:
            raise ValueError("soft_age_s must not be above hard_age_s")
        return self


class RunConfig(Strict):
    """The whole file."""

    robot: RobotConfig
    camera: CameraConfig
    control: ControlConfig = ControlConfig()
    safety: SafetyConfig = SafetyConfig()
    system1: System1Config = System1Config()
    system2: System2Config = System2Config()
    instruction: str

    @property
    def control_period_ns(self) -> int:
        return round(1e9 / self.control.rate_hz)

    @property
    def frame_period_ns(self) -> int:
        return round(1e9 / self.camera.fps)


def check_fit(config: RunConfig, manifest: Manifest) -> Limits:
    """The joint limits of this robot under this policy: of both, the tighter.

    Raises ConfigError when the joints are not the same ones in the same order, have no common
    range, or the camera is too slow for the policy's history.
    """
    robot, policy = config.robot.joints, manifest.action_space.joints
    ours, theirs = [joint.name for joint in robot], [joint.name for joint in policy]
    if ours != theirs:
        raise ConfigError(
            f"robot {config.robot.name} has the joints {', '.join(ours)}; the bundle "
            f"{manifest.policy} moves {', '.join(theirs)}: name and order robot.joints like that, "
            "or take a bundle made for this robot"
        )
    _check_camera(config, manifest)
    _check_safe_pose(config)
    limits = Limits(
        tuple(ours),
        np.maximum([j.lower_rad for j in robot], [j.lower for j in policy]),
        np.minimum([j.upper_rad for j in robot], [j.upper for j in policy]),
        np.minimum([j.velocity_limit_rad_s for j in robot], [j.velocity_limit for j in policy]),
        np.full(len(ours), config.safety.acceleration_max_rad_s2),
    )
    for name, lower, upper in zip(ours, limits.lower_rad, limits.upper_rad, strict=True):
        if lower >= upper:
            raise ConfigError(
                f"joint {name}: robot and bundle limits have no range in common "
                f"(from {lower:.3f} to {upper:.3f} rad); check zero_tick and direction"
            )
    return limits


def _check_camera(config: RunConfig, manifest: Manifest) -> None:
    camera = manifest.cameras[0]
    # Below this the same picture would stand for two instants of the history.
    if config.camera.fps * camera.interval_s < 0.75:
        raise ConfigError(
            f"camera.fps is {config.camera.fps:g}; the bundle {manifest.policy} looks at pictures "
            f"{camera.interval_s:g} s apart: use a camera of at least {1 / camera.interval_s:g} fps"
        )


def _check_safe_pose(config: RunConfig) -> None:
    pose, joints = config.safety.safe_pose_rad, config.robot.joints
    if pose is not None and len(pose) != len(joints):
        raise ConfigError(
            f"safety.safe_pose_rad has {len(pose)} angles, {config.robot.name} has {len(joints)} "
            "joints: give one each, in their order"
        )
