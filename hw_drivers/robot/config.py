"""The `robot` part of a robot's YAML file: its bus and its joints."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, ValidationInfo, field_validator, model_validator

from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import Port
from hw_drivers.bus.registers import Model
from hw_drivers.dynamixel import models as dynamixel
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.packet import ALERT_BIT, MAX_ID
from hw_drivers.feetech import models as feetech
from hw_drivers.feetech import packet as feetech_packet
from hw_drivers.feetech.bus import FeetechBus
from v2a.clock import Clock
from v2a.config import Strict


@dataclass(frozen=True, slots=True)
class Protocol:
    """What a robot needs to know of what its servos speak."""

    models: Mapping[str, Model]
    bauds: tuple[int, ...]
    open: Callable[[Port, Clock, Mapping[int, Model], float], ServoBus]
    position_mode: int
    # The register in which a servo limits its own speed on the way to a goal.
    speed_register: str
    # What lies together around the position, to be read in every cycle.
    cycle_registers: tuple[str, ...]
    alarm_bits: int  # of an answer's error byte
    describe_alarms: Callable[[int], str]  # of the value of hardware_error_status


PROTOCOLS = {
    "dynamixel2": Protocol(
        models=dynamixel.MODELS,
        bauds=tuple(dynamixel.BAUD_RATES.values()),
        open=DynamixelBus,
        position_mode=dynamixel.POSITION_MODE,
        speed_register="profile_velocity",
        cycle_registers=("present_position", "present_current"),
        alarm_bits=ALERT_BIT,
        describe_alarms=dynamixel.describe_hardware_error,
    ),
    "feetech": Protocol(
        models=feetech.MODELS,
        bauds=tuple(feetech.BAUD_RATES.values()),
        open=FeetechBus,
        position_mode=feetech.POSITION_MODE,
        speed_register="goal_velocity",
        cycle_registers=("present_position",),
        alarm_bits=0xFF,
        describe_alarms=feetech_packet.describe_alarms,
    ),
}
MODELS = {name: model for known in PROTOCOLS.values() for name, model in known.models.items()}


class BusConfig(Strict):
    """How the servos are reached. Without a request for `watchdog_s` Dynamixels stop by themselves
    (from 20 ms to 2.54 s, in steps of 20 ms): the answer to a controller that died. Feetech servos
    have no such watchdog. One reading of all joints takes `budget_s` at most, repetitions included:
    keep it below the control loop's period."""

    protocol: Literal["dynamixel2", "feetech"]
    port: str
    baud: int
    budget_s: float = Field(default=0.02, gt=0.0)
    watchdog_s: float = Field(
        default=0.5, ge=dynamixel.WATCHDOG_TICK_S, le=127 * dynamixel.WATCHDOG_TICK_S
    )

    @field_validator("baud")
    @classmethod
    def _known_baud(cls, baud: int, known_so_far: ValidationInfo) -> int:
        protocol = known_so_far.data.get("protocol")
        if protocol and baud not in (known := PROTOCOLS[protocol].bauds):
            raise ValueError(f"{protocol} servos know {_listed(known)} baud")
        return baud


class JointConfig(Strict):
    """One joint: position_rad = direction * (tick - zero_tick) * the servo's radians per tick."""

    name: str
    id: int = Field(ge=0, le=MAX_ID)
    model: str
    direction: Literal[1, -1] = 1
    zero_tick: int = Field(default=dynamixel.CENTRE_TICK, ge=0)
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: PositiveFloat

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if model not in MODELS:
            raise ValueError(f"unknown servo model, known are: {', '.join(MODELS)}")
        return model

    @property
    def rad_per_tick(self) -> float:
        """Radians per raw unit of the servo's position."""
        return MODELS[self.model].items["present_position"].scale

    @property
    def _last_tick(self) -> int:
        limits = MODELS[self.model].items["max_position_limit"].limits
        return limits[1] if limits else 0

    @model_validator(mode="after")
    def _limits_inside_one_turn(self) -> JointConfig:
        if self.lower_rad >= self.upper_rad:
            raise ValueError("lower_rad must be below upper_rad")
        if self.zero_tick > self._last_tick:
            raise ValueError(
                f"zero_tick {self.zero_tick} is outside of the servo's turn 0..{self._last_tick}; "
                f"name the tick at 0 rad, for the centre {(self._last_tick + 1) // 2}"
            )
        for limit_rad in (self.lower_rad, self.upper_rad):
            tick = self.zero_tick + self.direction * limit_rad / self.rad_per_tick
            if not 0 <= round(tick) <= self._last_tick:
                raise ValueError(
                    f"the limit {limit_rad} rad is tick {tick:.0f}, outside of the servo's turn "
                    f"0..{self._last_tick}; narrow the limit, or mount the horn so that the "
                    "seam lies outside of the joint's range and set zero_tick"
                )
        return self


class RobotConfig(Strict):
    """A robot of position-controlled joints."""

    name: str
    bus: BusConfig
    joints: tuple[JointConfig, ...] = Field(min_length=1)
    calibration: Path | None = None  # what `v2a motors calibrate` writes; checked at every connect

    @field_validator("calibration")
    @classmethod
    def _relative_to_the_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        folder = (info.context or {}).get("folder")
        return path if path is None or folder is None else (folder / path).absolute()

    @model_validator(mode="after")
    def _unique(self) -> RobotConfig:
        for what in ("name", "id"):
            values = [getattr(joint, what) for joint in self.joints]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"joints must differ in {what}; more than once: {twice}")
        return self

    @model_validator(mode="after")
    def _speak_one_protocol(self) -> RobotConfig:
        known = PROTOCOLS[self.bus.protocol].models
        if others := [f"{j.name} ({j.model})" for j in self.joints if j.model not in known]:
            raise ValueError(
                f"bus.protocol is {self.bus.protocol}, which {_listed(others)} can't speak; "
                f"it is spoken by {_listed(known)}"
            )
        return self


def _listed(things: object) -> str:
    return ", ".join(map(str, things))  # type: ignore[call-overload]
