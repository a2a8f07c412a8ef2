"""`robot.yaml`: one robot, its camera, and the rates at which a bundle drives it."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hw_drivers.robot.robot import RobotConfig
from runtime.config.safety_yaml import SafetyConfig
from v2a.config import Strict


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
