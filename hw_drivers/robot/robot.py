"""A robot of position-controlled joints: radians above, ticks of its servos below."""

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
from hw_drivers.dynamixel.models import WATCHDOG_TICK_S, WATCHDOG_TRIPPED
from hw_drivers.robot.checks import check_limits, check_servos
from hw_drivers.robot.config import MODELS, PROTOCOLS, BusConfig, JointConfig, RobotConfig
from hw_drivers.robot.health import HEALTH_REGISTERS, Health, alarm_message, newest_health
from v2a.clock import Clock
from v2a.errors import BusError, SafetyFault

__all__ = ["BusConfig", "Health", "JointConfig", "JointState", "Reading", "Robot", "RobotConfig"]

F64 = npt.NDArray[np.float64]

_TIMEOUT_S = 0.02  # of a request to one servo: a cycle's budget may be shorter
_TORQUE_OFF_TRIES = 3  # a byte lost to noise must not leave a joint stiff
_HEALTH_EVERY = 10  # cycles: what warms up or runs down takes seconds


@dataclass(frozen=True, slots=True)
class JointState:
    """The joints at `t_ns`, when they were asked. `position_rad` float64[n] is NaN where `valid`
    bool[n] is False: that servo did not answer. `age_ns` int64[n]: since it last did."""

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
    """The joints of `config`, in its order. Opens the port at `connect` unless one is given.

    Methods raise BusError when servos misbehave and PortError when the port is gone; `connect` is
    then the way back.
    """

    def __init__(self, config: RobotConfig, clock: Clock, port: Port | None = None) -> None:
        self.config = config
        self._protocol = PROTOCOLS[config.bus.protocol]
        self._clock = clock
        self._port = port
        self._connection: _Connection | None = None
        joints = config.joints
        self._ids = tuple(joint.id for joint in joints)
        self._zero_tick = np.array([joint.zero_tick for joint in joints])
        self._rad_per_tick = np.array([joint.rad_per_tick * joint.direction for joint in joints])
        self._lower_rad = np.array([joint.lower_rad for joint in joints])
        self._upper_rad = np.array([joint.upper_rad for joint in joints])
        self._watched = tuple(
            joint.id for joint in joints if "bus_watchdog" in MODELS[joint.model].items
        )
        self._watchdog_since_ns: int | None = None  # the last good read with the watchdog armed
        self._cycles = 0
        self._last: BlockReading | None = None
        self._last_health: BlockReading | None = None
        self._alarms = ("",) * len(joints)

    @property
    def bus(self) -> ServoBus:
        """The bus below, for whoever needs a register that `Robot` does not speak of."""
        return self._connected.bus

    @property
    def _connected(self) -> _Connection:
        if self._connection is None:
            raise BusError(f"{self.config.name}: not connected; call connect() first")
        return self._connection

    def connect(self) -> None:
        """Find every servo and check that it is as configured. Leaves torque as it is, also when it
        is called again because the port was gone: only `enable_torque` brings torque back.

        Raises one BusError that lists everything missing or wrong, and what is there instead.
        """
        self.close()
        bus_config = self.config.bus
        port = self._port or SerialPort(bus_config.port, bus_config.baud)
        models = {joint.id: MODELS[joint.model] for joint in self.config.joints}
        bus = self._protocol.open(port, self._clock, models, max(_TIMEOUT_S, bus_config.budget_s))
        try:
            check_servos(self.config, bus)
            self._connection = self._prepare_reading(bus)
        except BusError:
            bus.close()
            raise

    def _prepare_reading(self, bus: ServoBus) -> _Connection:
        bus.learn_return_delays()
        registers = self._protocol.cycle_registers
        cycle_block = self._block(bus, registers)
        health_block = self._block(bus, (*dict.fromkeys((*registers, *HEALTH_REGISTERS.values())),))
        return _Connection(bus, bus.cycle_reader(cycle_block), cycle_block, health_block)

    def _block(self, bus: ServoBus, names: tuple[str, ...]) -> Block:
        models = [MODELS[joint.model] for joint in self.config.joints]
        measured = [name for name in names if any(name in model.items for model in models)]
        return bus.block(measured, self._ids)

    def read_state(self) -> JointState:
        """The positions of all joints, from one request; a second one within the bus's budget_s
        for who was not heard.

        Raises BusError when a servo reports a hardware error, or the bus watchdog stopped it.
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
        """What came along with the positions: current as often as them on Dynamixels, the rest
        with every tenth. None before the first `read_state`. Asks nothing of the bus."""
        if self._last is None or self._last_health is None:
            return None
        return newest_health(self._last, self._last_health, self._alarms)

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
        fault, all torque is off. Limits that the servos would refuse are one."""
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
        servo_id, items = joint.id, MODELS[joint.model].items
        if "bus_watchdog" in items:
            self.bus.write(servo_id, "bus_watchdog", 0)  # a tripped one would refuse the goal
        # A joint that was held back and comes free returns to its goal no faster than this.
        self.bus.write(servo_id, self._protocol.speed_register, self._speed(joint))
        # The servo would jump to an old goal, so the goal comes first.
        present = self.bus.read(servo_id, "present_position")
        self.bus.write(servo_id, "goal_position", present)
        self.bus.write(servo_id, "torque_enable", 1)
        if "bus_watchdog" in items:
            ticks = math.ceil(self.config.bus.watchdog_s / WATCHDOG_TICK_S)
            self.bus.write(servo_id, "bus_watchdog", ticks)

    def _speed(self, joint: JointConfig) -> int:
        """The joint's speed limit in the servo's unit, rounded up: 0 would be no limit."""
        items = MODELS[joint.model].items
        unit_rad_s = items[self._protocol.speed_register].scale
        speed = math.ceil(joint.velocity_limit_rad_s / unit_rad_s)
        if "velocity_limit" in items:  # above which profile_velocity may not be
            speed = min(speed, self.bus.read(joint.id, "velocity_limit"))
        return speed

    def disable_torque(self) -> None:
        """Let go of every joint that can be reached; then raise BusError naming the others. Does
        nothing where nothing is connected."""
        self._watchdog_since_ns = None
        faults: dict[JointConfig, BusError] = {}
        stiff = self.config.joints if self._connection is not None else ()
        if stiff:
            with contextlib.suppress(BusError):  # told of by the writes below
                # All at once, before any answer is waited for.
                self.bus.sync_write("torque_enable", self._ids, [0] * len(self._ids))
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
        self._watchdog_since_ns = None
        if self._connection is not None:
            self._connection.bus.close()
            self._connection = None

    def _check_watchdog(self, now_ns: int) -> None:
        """After a silence, ask whether the servos gave us up: they would ignore goals without a
        word (a sync write is not answered)."""
        if self._watchdog_since_ns is None or not self._watched:
            return
        silence_s = (now_ns - self._watchdog_since_ns) / 1e9
        if silence_s > self.config.bus.watchdog_s / 2:
            watchdog = self.bus.sync_read("bus_watchdog", self._watched)
            if (watchdog.raw == WATCHDOG_TRIPPED).any():
                raise BusError(
                    f"{self.config.name}: the servos stopped themselves, {silence_s:.2f} s without "
                    f"a request (watchdog_s: {self.config.bus.watchdog_s}); enable torque again"
                )
            if not watchdog.valid.all():
                return  # ask again at the next read: a silent one may have given us up
        self._watchdog_since_ns = now_ns

    def _describe_alarms(self, found: BlockReading) -> tuple[str, ...]:
        """The words of those whose answers carry an alarm; one that is not there when asked for
        its reason is one, too."""
        alarmed = found.error & self._protocol.alarm_bits != 0
        if not alarmed.any():
            return ("",) * len(self._ids)
        status = self.bus.sync_read("hardware_error_status", self._ids)
        describe = self._protocol.describe_alarms
        return tuple(
            ((describe(raw) if valid else "no answer when asked for it") or "gone again")
            if alarm
            else ""
            for alarm, raw, valid in zip(alarmed, status.raw.tolist(), status.valid, strict=True)
        )
