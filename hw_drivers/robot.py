"""A robot of position-controlled joints: radians above, ticks of its servos below."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, PositiveFloat, field_validator, model_validator

from hw_drivers.dynamixel.bus import DynamixelBus, Pong
from hw_drivers.dynamixel.models import (
    CENTRE_TICK,
    DRIVE_MODES,
    MODELS,
    NAME_OF_NUMBER,
    POSITION_MODE,
    RAD_PER_TICK,
    TICKS_PER_TURN,
    WATCHDOG_TICK_S,
    WATCHDOG_TRIPPED,
    describe_hardware_error,
)
from hw_drivers.dynamixel.packet import ALERT_BIT, MAX_ID
from hw_drivers.port import Port, SerialPort
from v2a.clock import Clock
from v2a.config import Strict
from v2a.errors import BusError, SafetyFault

F64 = npt.NDArray[np.float64]

_TORQUE_OFF_TRIES = 3  # a byte lost to noise must not leave a joint stiff

# e-manual, "Baud Rate(8)".
Baud = Literal[9_600, 57_600, 115_200, 1_000_000, 2_000_000, 3_000_000, 4_000_000, 4_500_000]


class BusConfig(Strict):
    """How the servos are reached. Without a request for `watchdog_s` the servos stop by themselves
    (from 20 ms to 2.54 s, in steps of 20 ms): the answer to a controller that died."""

    protocol: Literal["dynamixel2"]
    port: str
    baud: Baud
    watchdog_s: float = Field(default=0.5, ge=WATCHDOG_TICK_S, le=127 * WATCHDOG_TICK_S)


class JointConfig(Strict):
    """One joint: position_rad = direction * (tick - zero_tick) * 2 pi / 4096."""

    name: str
    id: int = Field(ge=0, le=MAX_ID)
    model: str
    direction: Literal[1, -1] = 1
    zero_tick: int = Field(default=CENTRE_TICK, ge=0, lt=TICKS_PER_TURN)
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: PositiveFloat

    @field_validator("model")
    @classmethod
    def _known_model(cls, model: str) -> str:
        if model not in MODELS:
            raise ValueError(f"unknown servo model, known are: {', '.join(MODELS)}")
        return model

    @model_validator(mode="after")
    def _limits_inside_one_turn(self) -> JointConfig:
        if self.lower_rad >= self.upper_rad:
            raise ValueError("lower_rad must be below upper_rad")
        for limit_rad in (self.lower_rad, self.upper_rad):
            tick = self.zero_tick + self.direction * limit_rad / RAD_PER_TICK
            if not 0 <= round(tick) < TICKS_PER_TURN:
                raise ValueError(
                    f"the limit {limit_rad} rad is tick {tick:.0f}, outside of the servo's turn "
                    f"0..{TICKS_PER_TURN - 1}; narrow the limit, or mount the horn so that the "
                    "seam lies outside of the joint's range and set zero_tick"
                )
        return self


class RobotConfig(Strict):
    """The `robot` part of a robot's YAML file."""

    name: str
    bus: BusConfig
    joints: tuple[JointConfig, ...] = Field(min_length=1)

    @model_validator(mode="after")
    def _unique(self) -> RobotConfig:
        for what in ("name", "id"):
            values = [getattr(joint, what) for joint in self.joints]
            if twice := sorted({value for value in values if values.count(value) > 1}):
                raise ValueError(f"joints must differ in {what}; more than once: {twice}")
        return self


@dataclass(frozen=True, slots=True)
class JointState:
    """The joints at `t_ns`, when they were asked. `position_rad` float64[n] is NaN where `valid`
    bool[n] is False: that servo did not answer."""

    t_ns: int
    position_rad: F64
    valid: npt.NDArray[np.bool_]


class Robot:
    """The joints of `config`, in its order. Opens the port at `connect` unless one is given.

    Methods raise BusError when servos misbehave and PortError when the port is gone.
    """

    def __init__(self, config: RobotConfig, clock: Clock, port: Port | None = None) -> None:
        self.config = config
        self._clock = clock
        self._port = port
        self._bus: DynamixelBus | None = None
        self._ids = tuple(joint.id for joint in config.joints)
        self._zero_tick = np.array([joint.zero_tick for joint in config.joints])
        self._rad_per_tick = RAD_PER_TICK * np.array([joint.direction for joint in config.joints])
        self._lower_rad = np.array([joint.lower_rad for joint in config.joints])
        self._upper_rad = np.array([joint.upper_rad for joint in config.joints])
        self._watchdog_since_ns: int | None = None  # the last good read with the watchdog armed

    @property
    def bus(self) -> DynamixelBus:
        """The bus below, for whoever needs a register that `Robot` does not speak of."""
        if self._bus is None:
            raise BusError(f"{self.config.name}: not connected; call connect() first")
        return self._bus

    def connect(self) -> None:
        """Find every servo and check that it is as configured. Leaves torque as it is.

        Raises one BusError that lists everything missing or wrong, and what is there instead.
        """
        bus_config = self.config.bus
        port = self._port or SerialPort(bus_config.port, bus_config.baud)
        models = {joint.id: MODELS[joint.model] for joint in self.config.joints}
        self._bus = DynamixelBus(port, self._clock, models)
        try:
            self._check_servos()
        except BusError:
            self.close()
            raise

    def _check_servos(self) -> None:
        if faults := [fault for joint in self.config.joints for fault in self._faults(joint)]:
            found = ", ".join(f"id {i}: {_name(pong)}" for i, pong in self.bus.scan().items())
            title = f"{self.config.name} on {self.config.bus.port} is not as configured:"
            raise BusError("\n  ".join([title, *faults, f"found on the bus: {found or 'nothing'}"]))

    def _faults(self, joint: JointConfig) -> Iterator[str]:
        who = f"{joint.name} (id {joint.id}): "
        pong = self.bus.ping(joint.id)
        if pong is None:
            yield f"{who}no answer, expected {joint.model}; check its cable, power and id"
        elif pong.model_number != MODELS[joint.model].number:
            yield f"{who}is {_name(pong)}, expected {joint.model}; correct `model`, or swap it"
        else:
            if status := self.bus.read(joint.id, "hardware_error_status"):
                yield f"{who}hardware error: {describe_hardware_error(status)}; reboot it"
            if (mode := self.bus.read(joint.id, "operating_mode")) != POSITION_MODE:
                yield f"{who}operating mode {mode}, expected {POSITION_MODE} (position); set it"
            if (mode := self.bus.read(joint.id, "drive_mode")) not in DRIVE_MODES:
                yield f"{who}drive mode {mode}, expected one of {DRIVE_MODES}; set it"

    def read_state(self) -> JointState:
        """The positions of all joints, from one request.

        Raises BusError when a servo reports a hardware error, or the bus watchdog stopped it.
        """
        t_ns = self._clock.now_ns()
        self._check_watchdog(t_ns)
        read = self.bus.sync_read("present_position", self._ids)
        if (read.error & ALERT_BIT).any():
            raise BusError(self._describe_alerts())
        position_rad = (read.raw - self._zero_tick) * self._rad_per_tick
        return JointState(t_ns, np.where(read.valid, position_rad, np.nan), read.valid)

    def write_goal(self, position_rad: F64) -> None:
        """Send goals float64[n], held within the joints' limits. Nothing comes back.

        Raises SafetyFault on a goal that is not a number.
        """
        if not np.isfinite(position_rad).all():
            raise SafetyFault(f"{self.config.name}: a goal is not a number: {position_rad}")
        inside_rad = np.clip(position_rad, self._lower_rad, self._upper_rad)
        ticks = self._zero_tick + np.rint(inside_rad / self._rad_per_tick).astype(np.int64)
        self.bus.sync_write("goal_position", self._ids, ticks.tolist())

    def enable_torque(self) -> None:
        """Hold the present position, limit the servos' own speed, and arm the bus watchdog. On any
        fault, all torque is off."""
        try:
            for joint in self.config.joints:
                self._enable(joint)
        except BusError as fault:
            try:
                self.disable_torque()
            except BusError as stiff:
                raise type(fault)(f"{fault}; {stiff}") from fault
            raise
        self._watchdog_since_ns = self._clock.now_ns()

    def _enable(self, joint: JointConfig) -> None:
        servo_id = joint.id
        self.bus.write(servo_id, "bus_watchdog", 0)  # a tripped one would refuse the goal
        # A joint that was held back and comes free returns to its goal no faster than this.
        limit = self.bus.read(servo_id, "velocity_limit")  # profile_velocity may not be above it
        self.bus.write(servo_id, "profile_velocity", min(_profile_velocity(joint), limit))
        # The servo would jump to an old goal, so the goal comes first.
        present = self.bus.read(servo_id, "present_position")
        self.bus.write(servo_id, "goal_position", present)
        self.bus.write(servo_id, "torque_enable", 1)
        ticks = math.ceil(self.config.bus.watchdog_s / WATCHDOG_TICK_S)
        self.bus.write(servo_id, "bus_watchdog", ticks)

    def disable_torque(self) -> None:
        """Let go of every joint that can be reached; then raise BusError naming the others. Does
        nothing where nothing is connected."""
        self._watchdog_since_ns = None
        faults: dict[JointConfig, BusError] = {}
        stiff = self.config.joints if self._bus is not None else ()
        for _ in range(_TORQUE_OFF_TRIES):
            faults = {joint: fault for joint in stiff if (fault := self._let_go(joint))}
            stiff = tuple(faults)
        if faults:
            named = "; ".join(f"{joint.name}: {fault}" for joint, fault in faults.items())
            raise BusError(f"torque may still be on: {named}")

    def _let_go(self, joint: JointConfig) -> BusError | None:
        try:
            self.bus.write(joint.id, "torque_enable", 0)
        except BusError as fault:
            return fault
        return None

    def close(self) -> None:
        """Close the port; the servos stay as they are."""
        if self._bus is not None:
            self._bus.close()
            self._bus = None

    def _check_watchdog(self, now_ns: int) -> None:
        """After a silence, ask whether the servos gave us up: they would ignore goals without a
        word (a sync write is not answered)."""
        if self._watchdog_since_ns is None:
            return
        silence_s = (now_ns - self._watchdog_since_ns) / 1e9
        if silence_s > self.config.bus.watchdog_s / 2:
            watchdog = self.bus.sync_read("bus_watchdog", self._ids)
            if (watchdog.raw == WATCHDOG_TRIPPED).any():
                raise BusError(
                    f"{self.config.name}: the servos stopped themselves, {silence_s:.2f} s without "
                    f"a request (watchdog_s: {self.config.bus.watchdog_s}); enable torque again"
                )
            if not watchdog.valid.all():
                return  # ask again at the next read: a silent one may have given us up
        self._watchdog_since_ns = now_ns

    def _describe_alerts(self) -> str:
        status = self.bus.sync_read("hardware_error_status", self._ids)
        alerts = [
            f"{joint.name} (id {joint.id}): {describe_hardware_error(int(raw)) or 'gone again'}"
            for joint, raw, error in zip(self.config.joints, status.raw, status.error, strict=True)
            if error & ALERT_BIT
        ]
        return f"hardware error: {'; '.join(alerts)}; remove the cause, then reboot the servo"


def _profile_velocity(joint: JointConfig) -> int:
    """The joint's speed limit in the unit of register 112, rounded up: 0 would be no limit."""
    unit_rad_s = MODELS[joint.model].items["profile_velocity"].scale
    return math.ceil(joint.velocity_limit_rad_s / unit_rad_s)


def _name(pong: Pong) -> str:
    return NAME_OF_NUMBER.get(pong.model_number, f"model number {pong.model_number}")
