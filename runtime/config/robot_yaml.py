"""The models of `robot.yaml`: the robot, its camera and the rates of a run."""

from __future__ import annotations

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from hw_drivers.robot.robot import RobotConfig
from runtime.config.safety_yaml import SafetyConfig
from v2a.config import Strict


class CameraConfig(Strict):
    """The camera of the run."""

    source: str  # see `hw_drivers.cameras.camera.open_camera`
    fps: PositiveFloat = 20.0
    width: PositiveInt = 640  # requested from a live camera; the bundle sets the policy's size
    height: PositiveInt = 480
    # After this time without an image the camera counts as stopped. It must open within it, too.
    timeout_s: PositiveFloat = 2.0
    # Asked of a V4L2 camera, as its FOURCC: MJPG, YUYV, ...; none: the driver's own choice.
    pixel_format: str | None = Field(default=None, pattern="^[A-Z0-9]{3,4}$")


class ControlConfig(Strict):
    """The control loop, which drives the motors."""

    rate_hz: float = Field(default=50.0, gt=0.0, le=1000.0)
    blend_s: float = Field(default=0.1, ge=0.0)
    # Longer than any chunk, so that a chunk can end and come to rest by itself.
    command_age_max_s: PositiveFloat = 2.0
    serial_faults_max: PositiveInt = 5
    core: NonNegativeInt | None = None  # CPU core of the control process; none: any core
    require_rt: bool = False  # refuse to run without the settings of `runtime.host.realtime`


class System1Config(Strict):
    """The action model, which makes chunks."""

    period_s: PositiveFloat = 0.2
    noise_scale: float = Field(default=1.0, ge=0.0, le=1.0)  # initial noise: 1 as trained, 0 none


class System2Config(Strict):
    """The video model, which makes conditions."""

    period_s: float = Field(default=0.0, ge=0.0)  # shortest; 0: as often as it can
    soft_age_s: PositiveFloat = 1.0  # an older condition slows the chunks down
    hard_age_s: PositiveFloat = 2.0  # an older condition stops new chunks

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
