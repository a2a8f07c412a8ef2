"""The models of `robot.yaml`: the robot, its camera and the rates of a run."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Final

from pydantic import Field, ValidationInfo, model_validator

from hw_drivers.robot.robot import RobotConfig
from runtime.config.safety_yaml import SafetyConfig
from v2a.bounds import is_recorded, within
from v2a.config import Fault, Strict, faults_of_keys

# Of the control period. The rest is for the write.
_READING_SHARE: Final = 0.95
# The longest watchdog: after that, servos with one stop by themselves.
SERIAL_FAULTS_MAX_S: Final = 2.5


class CameraConfig(Strict):
    """The camera of the run."""

    source: str = Field(max_length=4096)  # see `hw_drivers.cameras.camera.open_camera`
    fps: Annotated[float, within(0.1, 1000, "no camera is faster", loose=None)] = 20.0
    # Requested from a live camera; the bundle sets the policy's size.
    width: int = Field(default=640, ge=1, le=16384)
    height: int = Field(default=480, ge=1, le=16384)
    # After this time without a picture the camera counts as stopped. It must open within it, too.
    timeout_s: Annotated[
        float, within(0.05, 30, "the policy would act on a picture of long ago")
    ] = 2.0
    # Asked of a V4L2 camera, as its FOURCC: MJPG, YUYV, ...; none: the driver's own choice.
    pixel_format: str | None = Field(default=None, pattern="^[A-Z0-9]{3,4}$")


class ControlConfig(Strict):
    """The control loop, which drives the motors."""

    rate_hz: Annotated[float, within(2, 1000, "a stop takes effect at a tick", loose="below")] = (
        50.0
    )
    blend_s: Annotated[
        float, within(0, 2, "a new chunk would take over after its end", loose=None)
    ] = 0.1
    # Longer than any chunk, so that a chunk can end and come to rest by itself.
    command_age_max_s: Annotated[float, within(0.05, 10, "no chunk is longer")] = 2.0
    serial_faults_max: Annotated[
        int, within(1, 2500, f"together at most {SERIAL_FAULTS_MAX_S:g} s without an answer")
    ] = 5
    # CPU core of the control process; none: any core
    core: Annotated[int | None, within(0, 1023, "the kernel counts so far", loose=None)] = None
    require_rt: bool = False  # refuse to run without the settings of `runtime.host.realtime`


class System1Config(Strict):
    """The action model, which makes chunks."""

    period_s: Annotated[float, within(0.001, 10, "a chunk ends before that", loose=None)] = 0.2
    noise_scale: float = Field(default=1.0, ge=0.0, le=1.0)  # initial noise: 1 as trained, 0 none


_OLD_CONDITION = "the scene has changed by then"


class System2Config(Strict):
    """The video model, which makes conditions."""

    # The shortest; 0: as often as it can.
    period_s: Annotated[float, within(0, 60, "a condition is too old by then", loose=None)] = 0.0
    # An older condition slows the chunks down.
    soft_age_s: Annotated[float, within(0.05, 30, _OLD_CONDITION)] = 1.0
    # An older condition stops new chunks.
    hard_age_s: Annotated[float, within(0.05, 30, _OLD_CONDITION)] = 2.0

    @model_validator(mode="after")
    def _ordered(self, info: ValidationInfo) -> System2Config:
        if self.soft_age_s > self.hard_age_s and not is_recorded(info):
            text = f"must not be above hard_age_s (got {self.soft_age_s:g} and {self.hard_age_s:g})"
            raise faults_of_keys([("soft_age_s", text)])
        return self


class RunConfig(Strict):
    """The whole file."""

    robot: RobotConfig
    camera: CameraConfig
    control: ControlConfig = ControlConfig()
    safety: SafetyConfig = SafetyConfig()
    system1: System1Config = System1Config()
    system2: System2Config = System2Config()
    instruction: str = Field(max_length=10_000)

    @model_validator(mode="after")
    def _fits_together(self, info: ValidationInfo) -> RunConfig:
        if is_recorded(info):
            return self
        bus, period_s = self.robot.bus, 1 / self.control.rate_hz
        if "budget_s" not in bus.model_fields_set and bus.budget_s > _READING_SHARE * period_s:
            bus = bus.model_copy(update={"budget_s": _READING_SHARE * period_s})
            bus.model_fields_set.discard("budget_s")  # another rate gives another budget
            vars(self)["robot"] = self.robot.model_copy(update={"bus": bus})
        if faults := list(_misfits(self)):
            raise faults_of_keys(faults)
        return self

    @property
    def control_period_ns(self) -> int:
        return round(1e9 / self.control.rate_hz)

    @property
    def frame_period_ns(self) -> int:
        return round(1e9 / self.camera.fps)


def _misfits(config: RunConfig) -> Iterator[Fault]:
    """Yield each key whose value does not fit the other keys."""
    bus, safety, camera, control = config.robot.bus, config.safety, config.camera, config.control
    period_s = 1 / control.rate_hz
    at = f"at control.rate_hz {control.rate_hz:g}"
    if bus.budget_s > period_s:
        yield (
            "robot.bus.budget_s",
            f"must not be above the control period, {period_s:g} s {at}; it is in seconds, so "
            f"lower it, or lower the rate (got {bus.budget_s:g})",
        )
    if bus.family.watchdog and period_s >= bus.watchdog_s / 2:
        yield (
            "robot.bus.watchdog_s",
            f"must be above two control periods, {2 * period_s:g} s {at}, or the servos stop "
            f"between two ticks; raise it, or raise the rate (got {bus.watchdog_s:g})",
        )
    if safety.state_age_max_s <= period_s:
        yield (
            "safety.state_age_max_s",
            f"must be above the control period, {period_s:g} s {at}; raise it, or raise the rate "
            f"(got {safety.state_age_max_s:g})",
        )
    if (faults_s := control.serial_faults_max * period_s) > SERIAL_FAULTS_MAX_S:
        yield (
            "control.serial_faults_max",
            f"{control.serial_faults_max} bad cycles take {faults_s:g} s {at}; at most "
            f"{SERIAL_FAULTS_MAX_S:g} s, so {int(SERIAL_FAULTS_MAX_S / period_s)}",
        )
    if camera.timeout_s <= 1 / camera.fps:
        yield (
            "camera.timeout_s",
            f"must be above the time between two pictures, {1 / camera.fps:g} s at camera.fps "
            f"{camera.fps:g} (got {camera.timeout_s:g})",
        )
    yield from _safe_pose_misfits(config)


def _safe_pose_misfits(config: RunConfig) -> Iterator[Fault]:
    pose, joints, key = config.safety.safe_pose_rad, config.robot.joints, "safety.safe_pose_rad"
    if pose is None:
        return
    if len(pose) != len(joints):
        yield (
            key,
            f"has {len(pose)} angles, {config.robot.name} has {len(joints)} joints; give one "
            "angle per joint, in their order",
        )
        return
    for index, (angle_rad, joint) in enumerate(zip(pose, joints, strict=True)):
        if not joint.lower_rad <= angle_rad <= joint.upper_rad:
            yield (
                f"{key}.{index}",
                f"joint {joint.name} moves from {joint.lower_rad:g} to {joint.upper_rad:g} rad; "
                f"choose an angle in that range (got {angle_rad:g})",
            )
