"""The `robot` part of a robot's YAML file: its bus and its joints."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Final, Literal, NamedTuple

from pydantic import AfterValidator, Field, ValidationInfo, field_validator, model_validator

from hw_drivers.bus.registers import Model
from hw_drivers.family import FAMILIES, Family, Role, all_models, load_family
from v2a.bounds import is_recorded, within
from v2a.config import Strict, faults_of_keys

SPEED_MAX_RAD_S: Final = 50.0
"""No servo of the tables turns faster: the highest limit is 2047 units of 0.229 rpm."""

# Names become folders, topics and labels, so they have no slash, and do not begin with a dot.
_NAME: Final = re.compile(r"\w([\w .-]{0,62}[\w.-])?")


def _plain(name: str, info: ValidationInfo) -> str:
    if _NAME.fullmatch(name) or is_recorded(info):
        return name
    raise ValueError(
        "a name has letters, digits, spaces, '_', '-' and '.', begins with a letter, a digit or "
        "'_', and has at most 64 characters"
    )


Name = Annotated[str, AfterValidator(_plain)]


class BusConfig(Strict):
    """The serial bus and the servo family on it.

    `budget_s` bounds one reading of all joints, repetitions included. It must fit into the period
    of the control loop. `watchdog_s` is the time after which servos with a watchdog stop by
    themselves when they hear no request, so that a dead controller does not leave an arm moving.
    """

    protocol: str  # a key of `FAMILIES`
    port: str = Field(min_length=1, max_length=4096)
    baud: int
    budget_s: Annotated[float, within(0.001, 0.5, "a stop waits for the end of a reading")] = 0.02
    # e-manual, "Bus Watchdog(98)": 1 to 127 units of 20 ms.
    watchdog_s: Annotated[float, within(0.02, 2.54, "the range of a Dynamixel's register")] = 0.5

    @property
    def family(self) -> Family:
        """The record of the servos' family."""
        return load_family(self.protocol)

    @field_validator("protocol")
    @classmethod
    def _known_protocol(cls, protocol: str) -> str:
        if protocol not in FAMILIES:
            raise ValueError(f"Input should be {' or '.join(map(repr, FAMILIES))}")
        return protocol

    @field_validator("baud")
    @classmethod
    def _known_baud(cls, baud: int, known_so_far: ValidationInfo) -> int:
        protocol = known_so_far.data.get("protocol")
        if protocol and baud not in (known := load_family(protocol).bauds):
            raise ValueError(f"{protocol} servos know {_listed(known)} baud")
        return baud


# A key of a joint -> the register that its servo needs for it.
_REGISTER_OF_KEY = {"shadow_id": "secondary_id", "current_limit_a": "goal_current"}


class ServoConfig(NamedTuple):
    """One servo of a robot. `name` is the name of its joint, or "JOINT's shadow"."""

    name: str
    id: int
    model: Model
    role: Role
    velocity_limit_rad_s: float
    current_limit_a: float | None

    @property
    def goal_current(self) -> int | None:
        """The register's value for `current_limit_a`, rounded down; None without a limit."""
        if self.current_limit_a is None:
            return None
        return math.floor(self.current_limit_a / self.model.items["goal_current"].scale)


class JointConfig(Strict):
    """One joint: position_rad = direction * (tick - zero_tick) * the servo's radians per tick.

    `shadow_id` names a second servo of the same model on the same joint. It obeys the commands to
    `id`, its Secondary ID. `current_limit_a` makes the servo push no harder than that, in
    current-based position mode: for a gripper.
    """

    name: Name
    model: str
    id: int = Field(ge=0)
    shadow_id: int | None = Field(default=None, ge=0)
    current_limit_a: Annotated[
        float | None, within(0.001, 10, "no servo of the tables draws more", loose=None)
    ] = None
    direction: Literal[1, -1] = 1
    # Without a value: the centre of the model's turn.
    zero_tick: int = Field(default=None, ge=0, validate_default=True)
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: Annotated[
        float, within(0.001, SPEED_MAX_RAD_S, "no servo turns faster", loose=None)
    ]

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if model not in (known := all_models()):
            raise ValueError(f"unknown servo model, known are: {', '.join(known)}")
        return model

    @field_validator("id", "shadow_id")
    @classmethod
    def _id_of_the_model(cls, servo_id: int | None, known_so_far: ValidationInfo) -> int | None:
        model = known_so_far.data.get("model")
        if model and servo_id is not None:
            _, highest = all_models()[model].items["id"].limits or (0, 0)
            if servo_id > highest:
                raise ValueError(f"Input should be less than or equal to {highest}")
        return servo_id

    @field_validator("shadow_id", "current_limit_a")
    @classmethod
    def _known_to_the_model(cls, value: float | None, known_so_far: ValidationInfo) -> float | None:
        model, key = known_so_far.data.get("model"), known_so_far.field_name or ""
        register = _REGISTER_OF_KEY[key]
        if model and value is not None and register not in all_models()[model].items:
            raise ValueError(f"a {model} has no register {register}; leave {key} out")
        return value

    @field_validator("current_limit_a")
    @classmethod
    def _within_the_register(
        cls, current_limit_a: float | None, known_so_far: ValidationInfo
    ) -> float | None:
        model = known_so_far.data.get("model")
        item = all_models()[model].items.get("goal_current") if model else None
        if item is None or item.limits is None or current_limit_a is None:
            return current_limit_a
        highest_a = item.limits[1] * item.scale
        if not item.scale <= current_limit_a <= highest_a:
            raise ValueError(f"a {model} takes {item.scale:g} to {highest_a:g} A")
        return current_limit_a

    @field_validator("zero_tick", mode="before")
    @classmethod
    def _centre_of_the_model(cls, zero_tick: object, known_so_far: ValidationInfo) -> object:
        if zero_tick is not None:
            return zero_tick
        model = known_so_far.data.get("model")
        return all_models()[model].turn_ticks // 2 if model else 0

    @field_validator("velocity_limit_rad_s")
    @classmethod
    def _speed_of_the_model(cls, rad_s: float, info: ValidationInfo) -> float:
        model = info.data.get("model")
        register = all_models()[model].items.get("velocity_limit") if model else None
        if register is None or register.limits is None or is_recorded(info):
            return rad_s
        highest_rad_s = register.limits[1] * register.scale
        if rad_s > highest_rad_s:
            raise ValueError(f"must be at most {highest_rad_s:.3g}, the highest speed of a {model}")
        return rad_s

    @property
    def servo_model(self) -> Model:
        """The register table of the joint's servo."""
        return all_models()[self.model]

    @property
    def rad_per_tick(self) -> float:
        """Radians per raw unit of the servo's position."""
        return self.servo_model.rad_per_tick

    @property
    def servos(self) -> tuple[ServoConfig, ...]:
        """The joint's servo, then its shadow if it has one."""
        limited = self.current_limit_a is not None
        model, limits = self.servo_model, (self.velocity_limit_rad_s, self.current_limit_a)
        main = ServoConfig(self.name, self.id, model, Role(current_limited=limited), *limits)
        if self.shadow_id is None:
            return (main,)
        name, role = f"{self.name}'s shadow", Role(self.id, limited)
        return (main, ServoConfig(name, self.shadow_id, model, role, *limits))

    @model_validator(mode="after")
    def _limits_inside_one_turn(self) -> JointConfig:
        last_tick = self.servo_model.turn_ticks - 1
        if self.lower_rad >= self.upper_rad:
            raise ValueError("lower_rad must be below upper_rad")
        if self.zero_tick > last_tick:
            raise ValueError(
                f"zero_tick {self.zero_tick} is outside the servo's turn 0..{last_tick}; "
                f"set it to the tick at 0 rad, for the centre {(last_tick + 1) // 2}"
            )
        for limit_rad in (self.lower_rad, self.upper_rad):
            tick = self.zero_tick + self.direction * limit_rad / self.rad_per_tick
            if not 0 <= round(tick) <= last_tick:
                raise ValueError(
                    f"the limit {limit_rad} rad is tick {tick:.0f}, outside the servo's turn "
                    f"0..{last_tick}; narrow the limit, or mount the horn so that the seam lies "
                    "outside the joint's range and set zero_tick"
                )
        return self


class RobotConfig(Strict):
    """A robot of position-controlled joints, all of one servo family."""

    name: Name
    bus: BusConfig
    joints: tuple[JointConfig, ...] = Field(min_length=1)
    # The file that `v2a motors calibrate` writes. Every connect compares the servos with it.
    calibration: Path | None = None

    @property
    def servos(self) -> tuple[ServoConfig, ...]:
        """All servos: those of the joints, in the joints' order, then the shadows."""
        by_joint = [joint.servos for joint in self.joints]
        shadows = [servo for servos in by_joint for servo in servos[1:]]
        return (*(servos[0] for servos in by_joint), *shadows)

    @field_validator("calibration")
    @classmethod
    def _relative_to_the_file(cls, path: Path | None, info: ValidationInfo) -> Path | None:
        folder = (info.context or {}).get("folder")
        return path if path is None or folder is None else (folder / path).absolute()

    @model_validator(mode="after")
    def _unique(self) -> RobotConfig:
        faults = []
        for what in ("name", "id"):
            taken: dict[object, str] = {}
            for number, joint in enumerate(self.joints):
                for servo in joint.servos:
                    value, is_shadow = getattr(servo, what), servo.id == joint.shadow_id
                    key = f"joints.{number}.{'shadow_id' if is_shadow and what == 'id' else what}"
                    if value in taken:
                        text = f"{value!r} is also the {what} of {taken[value]}; joints must differ"
                        faults.append((key, text))
                    taken.setdefault(value, f"joints.{number}")
        if faults:
            raise faults_of_keys(faults)
        return self

    @model_validator(mode="after")
    def _of_one_family(self) -> RobotConfig:
        known = self.bus.family.models
        if others := [f"{j.name} ({j.model})" for j in self.joints if j.model not in known]:
            raise ValueError(
                f"bus.protocol is {self.bus.protocol}, which {_listed(others)} can't speak; "
                f"its models are {_listed(known)}"
            )
        return self


def _listed(things: Iterable[object]) -> str:
    return ", ".join(map(str, things))
