"""A robot of position-controlled joints: radians for its user, ticks for its servos."""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Block, BlockReading, Reading
from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import Port, SerialPort
from hw_drivers.bus.reader import BlockReader
from hw_drivers.robot.checks import check_limits, check_servos
from hw_drivers.robot.config import BusConfig, JointConfig, RobotConfig
from hw_drivers.robot.health import HEALTH_REGISTERS, Health, alarm_message, newest_health
from hw_drivers.robot.torque import TorqueState, hold_still
from v2a.clock import Clock
from v2a.errors import BusError, SafetyFault

__all__ = ["BusConfig", "Health", "JointConfig", "JointState", "Reading", "Robot", "RobotConfig"]

F64 = npt.NDArray[np.float64]

_TIMEOUT_S = 0.02  # of a request to one servo: a cycle's budget may be shorter
_TORQUE_OFF_TRIES = 3  # a byte lost to noise must not leave a joint stiff
_HEALTH_EVERY = 10  # cycles: what warms up or runs down takes seconds


@dataclass(frozen=True, slots=True)
class JointState:
    """The positions of the n joints, read at `t_ns` (monotonic).

    `position_rad` float64 [n] is NaN where `valid` bool [n] is False, because that servo did not
    answer. `age_ns` int64 [n] is the time since the servo last answered.
    """

    t_ns: int
    position_rad: F64
    valid: npt.NDArray[np.bool_]
    age_ns: npt.NDArray[np.int64]


class _Connection(NamedTuple):
    bus: ServoBus
    reader: BlockReader
    cycle_block: Block
    health_block: Block


class Robot:
    """The joints of `config`, in its order.

    `connect` opens the serial port unless the caller passes a `port`. Every method raises BusError
    when a servo misbehaves and PortError when the port is gone. After either, call `connect` again.
    """

    def __init__(self, config: RobotConfig, clock: Clock, port: Port | None = None) -> None:
        self.config = config
        self._family = config.bus.family
        self._clock = clock
        self._port = port
        self._connection: _Connection | None = None
        joints = config.joints
        self._ids = tuple(joint.id for joint in joints)
        self._zero_tick = np.array([joint.zero_tick for joint in joints])
        self._rad_per_tick = np.array([joint.rad_per_tick * joint.direction for joint in joints])
        self._lower_rad = np.array([joint.lower_rad for joint in joints])
        self._upper_rad = np.array([joint.upper_rad for joint in joints])
        watchdog = self._family.watchdog
        self._watched = tuple(
            joint.id
            for joint in joints
            if watchdog and watchdog.register in joint.servo_model.items
        )
        self._watchdog_since_ns: int | None = None  # the last good read with the watchdog armed
        self._cycles = 0
        self._last: BlockReading | None = None
        self._last_health: BlockReading | None = None
        self._alarms = ("",) * len(joints)
        # What each joint confirmed last, by its name.
        self.torque: dict[str, TorqueState] = {joint.name: "unknown" for joint in joints}

    @property
    def bus(self) -> ServoBus:
        """The servos' bus, for registers that `Robot` has no method for."""
        return self._connected.bus

    @property
    def _connected(self) -> _Connection:
        if self._connection is None:
            raise BusError(f"{self.config.name}: not connected; call connect() first")
        return self._connection

    def connect(self) -> None:
        """Find every servo and check that it is as configured. Torque stays as it is.

        Call it again after the port was gone; only `enable_torque` brings torque back. Raises one
        BusError that lists everything missing or wrong, and what the bus has instead.
        """
        self.close()
        bus_config = self.config.bus
        port = self._port or SerialPort(bus_config.port, bus_config.baud)
        models = {joint.id: joint.servo_model for joint in self.config.joints}
        bus = self._family.bus(port, self._clock, models, max(_TIMEOUT_S, bus_config.budget_s))
        try:
            check_servos(self.config, bus)
            self._connection = self._prepare_reading(bus)
        except BusError:
            bus.close()
            raise

    def _prepare_reading(self, bus: ServoBus) -> _Connection:
        bus.learn_return_delays()
        registers = self._family.cycle_registers
        cycle_block = self._block(bus, registers)
        health_block = self._block(bus, (*dict.fromkeys((*registers, *HEALTH_REGISTERS.values())),))
        return _Connection(bus, bus.cycle_reader(cycle_block), cycle_block, health_block)

    def _block(self, bus: ServoBus, names: tuple[str, ...]) -> Block:
        models = bus.models.values()
        measured = [name for name in names if any(name in model.items for model in models)]
        return bus.block(measured, self._ids)

    def read_state(self) -> JointState:
        """Read the positions of all joints with one request.

        Servos that stay silent are asked again, within the bus's `budget_s`. Raises BusError when
        a servo reports a hardware error or was stopped by its watchdog.
        """
        connected, t_ns = self._connected, self._clock.now_ns()
        self._check_watchdog(t_ns)
        due = self._cycles % _HEALTH_EVERY == 0
        self._cycles += 1
        block = connected.health_block if due else connected.cycle_block
        found = connected.reader.read(block, self.config.bus.budget_s)
        self._last = found
        if due:
            self._last_health = found
        if found.error.any() or any(self._alarms):
            self._alarms = self._describe_alarms(found)
            if any(self._alarms):
                raise BusError(alarm_message(self.config.joints, self._alarms))
        position_rad = found.block.raw("present_position", found.rows) - self._zero_tick
        position_rad = position_rad * self._rad_per_tick
        if not found.all_valid:
            position_rad = np.where(found.valid, position_rad, np.nan)
        return JointState(t_ns, position_rad, found.valid, found.age_ns)

    def health(self) -> Health | None:
        """The newest voltage, temperature, current and alarms; None before the first `read_state`.

        Nothing is asked of the bus: `read_state` reads these values along with the positions, all
        of them in every tenth cycle, and those next to the position in every cycle.
        """
        if self._last is None or self._last_health is None:
            return None
        return newest_health(self._last, self._last_health, self._alarms)

    def write_goal(self, position_rad: F64) -> None:
        """Send the goals `position_rad` float64 [n], clipped to the joints' limits.

        The servos do not answer. Raises SafetyFault on a goal that is NaN or infinite.
        """
        if not np.isfinite(position_rad).all():
            raise SafetyFault(f"{self.config.name}: a goal is not a number: {position_rad}")
        inside_rad = np.clip(position_rad, self._lower_rad, self._upper_rad)
        ticks = self._zero_tick + np.rint(inside_rad / self._rad_per_tick).astype(np.int64)
        self.bus.sync_write("goal_position", self._ids, ticks.tolist())

    def enable_torque(self) -> None:
        """Hold every joint where it is, limit the servos' own speed, and arm their watchdogs.

        Raises BusError, with all torque off, when a servo misbehaves or would refuse the limits.
        """
        try:
            check_limits(self.config, self.bus)
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
        self.torque[joint.name] = "unknown"
        hold_still(self.bus, self._family, joint.id, joint.velocity_limit_rad_s)
        self.torque[joint.name] = "on"
        if joint.id in self._watched and (watchdog := self._family.watchdog):
            units = math.ceil(self.config.bus.watchdog_s / watchdog.unit_s)
            self.bus.write(joint.id, watchdog.register, units)

    def read_torque(self) -> None:
        """Read every joint's torque into `torque`. A joint that does not answer is unknown."""
        found = self.bus.sync_read("torque_enable", self._ids)
        for joint, raw, valid in zip(self.config.joints, found.raw, found.valid, strict=True):
            self.torque[joint.name] = "unknown" if not valid else "on" if raw else "off"

    def disable_torque(self) -> None:
        """Switch torque off in every joint that can be reached.

        Raises BusError that names the joints that did not confirm. Does nothing before `connect`.
        """
        self._watchdog_since_ns = None
        faults: dict[JointConfig, BusError] = {}
        stiff = self.config.joints if self._connection is not None else ()
        if stiff:
            with contextlib.suppress(BusError):  # the writes below report it
                # All at once, before waiting for any answer.
                self.bus.sync_write("torque_enable", self._ids, [0] * len(self._ids))
        for _ in range(_TORQUE_OFF_TRIES):
            faults = {joint: fault for joint in stiff if (fault := self._let_go(joint))}
            stiff = tuple(faults)
        if faults:
            named = "; ".join(f"{joint.name}: {fault}" for joint, fault in faults.items())
            raise BusError(f"torque may still be on: {named}")

    def _let_go(self, joint: JointConfig) -> BusError | None:
        """Switch torque off and read it back. Return why that failed, None if torque is off."""
        try:
            self.bus.write(joint.id, "torque_enable", 0)
            torque = self.bus.read(joint.id, "torque_enable")
        except BusError as fault:
            self.torque[joint.name] = "unknown"
            return fault
        self.torque[joint.name] = "on" if torque else "off"
        return BusError("the servo keeps torque on") if torque else None

    def close(self) -> None:
        """Close the port. The servos keep torque and goals."""
        self._watchdog_since_ns = None
        if self._connection is not None:
            self._connection.bus.close()
            self._connection = None

    def _check_watchdog(self, now_ns: int) -> None:
        """After a silence, ask whether a watchdog has tripped.

        Such a servo ignores goals, and since nobody answers a sync write, silently so.
        """
        watchdog = self._family.watchdog
        if self._watchdog_since_ns is None or watchdog is None or not self._watched:
            return
        silence_s = (now_ns - self._watchdog_since_ns) / 1e9
        if silence_s > self.config.bus.watchdog_s / 2:
            found = self.bus.sync_read(watchdog.register, self._watched)
            if (found.raw == watchdog.tripped).any():
                raise BusError(
                    f"{self.config.name}: the servos stopped themselves, {silence_s:.2f} s without "
                    f"a request (watchdog_s: {self.config.bus.watchdog_s}); enable torque again"
                )
            if not found.valid.all():
                return  # ask again at the next read: a silent servo's watchdog may have tripped
        self._watchdog_since_ns = now_ns

    def _describe_alarms(self, found: BlockReading) -> tuple[str, ...]:
        """Each joint's alarm in words, empty without one.

        A servo that reports an alarm and then does not say which one still has an alarm.
        """
        alarmed = found.error & self._family.alarm_bits != 0
        if not alarmed.any():
            return ("",) * len(self._ids)
        status = self.bus.sync_read("hardware_error_status", self._ids)
        describe = self._family.describe_alarms
        return tuple(
            ((describe(raw) if valid else "no answer when asked for it") or "gone again")
            if alarm
            else ""
            for alarm, raw, valid in zip(alarmed, status.raw.tolist(), status.valid, strict=True)
        )
