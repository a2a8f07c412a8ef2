"""A robot of position-controlled joints: radians for its user, ticks for its servos."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Block, BlockReading, Reading
from hw_drivers.bus.bus import ServoBus
from hw_drivers.bus.port import Port, SerialPort
from hw_drivers.bus.reader import BlockReader
from hw_drivers.bus.registers import Model
from hw_drivers.robot.checks import check_limits, check_servos
from hw_drivers.robot.config import BusConfig, JointConfig, RobotConfig
from hw_drivers.robot.health import Health, alarm_message, newest_health
from hw_drivers.robot.torque import Hold, TorqueState, hold_all, read_hold, torque_off
from hw_drivers.robot.watch import CYCLES, Turn, losses, plan_cycles, torque_states
from v2a.clock import Clock
from v2a.errors import BusError, SafetyFault

__all__ = ["BusConfig", "Health", "JointConfig", "JointState", "Reading", "Robot", "RobotConfig"]

F64 = npt.NDArray[np.float64]
I64 = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

_TIMEOUT_S = 0.02  # of a request to one servo: a cycle's budget may be shorter


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
    turns: tuple[Turn, ...]
    holds: tuple[Hold, ...]


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
        self._servos = config.servos  # the joints' own, then the shadows
        self._ids = tuple(joint.id for joint in joints)
        self._all_ids = tuple(servo.id for servo in self._servos)
        joint_of = {servo.id: k for k, joint in enumerate(joints) for servo in joint.servos}
        self._joint_of_shadow = tuple(joint_of[i] for i in self._all_ids[len(joints) :])
        self._zero_tick = np.array([joint.zero_tick for joint in joints])
        self._rad_per_tick = np.array([joint.rad_per_tick * joint.direction for joint in joints])
        self._lower_rad = np.array([joint.lower_rad for joint in joints])
        self._upper_rad = np.array([joint.upper_rad for joint in joints])
        self._watchdog_of = tuple(self._watchdog_units(servo.model) for servo in self._servos)
        self._watched = tuple(
            i for i, units in zip(self._all_ids, self._watchdog_of, strict=True) if units
        )
        self._armed = False
        self._watchdog_since_ns: int | None = None  # the last good read with the watchdog armed
        self._cycles = 0
        self._last: BlockReading | None = None
        self._last_health: BlockReading | None = None
        self._alarms = ("",) * len(self._servos)
        self._lost: dict[int, str] = {}  # place of a servo -> what it lost, in words
        self._torque: dict[int, TorqueState] = dict.fromkeys(self._all_ids, "unknown")

    def _watchdog_units(self, model: Model) -> int:
        """The value that arms the watchdog of such a servo; 0 if it has none."""
        watchdog = self._family.watchdog
        if watchdog is None or watchdog.register not in model.items:
            return 0
        return math.ceil(self.config.bus.watchdog_s / watchdog.unit_s)

    @property
    def torque(self) -> dict[str, TorqueState]:
        """What each joint said last about its torque, by its name.

        `read_state` keeps it up to date. A joint with a shadow is off if both servos are.
        """
        states = {
            j.name: {self._torque[servo.id] for servo in j.servos} for j in self.config.joints
        }
        worst: tuple[TorqueState, ...] = ("on", "unknown", "off")
        return {name: next(w for w in worst if w in found) for name, found in states.items()}

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
        models = {servo.id: servo.model for servo in self._servos}
        bus = self._family.bus(port, self._clock, models, max(_TIMEOUT_S, bus_config.budget_s))
        try:
            check_servos(self.config, bus)
            self._connection = self._prepare(bus)
        except BusError:
            bus.close()
            raise

    def _prepare(self, bus: ServoBus) -> _Connection:
        bus.learn_return_delays()
        watchdogs = zip(self._servos, self._watchdog_of, strict=True)
        holds = tuple(read_hold(bus, self._family, servo, units) for servo, units in watchdogs)
        turns = plan_cycles(bus, self._family, holds)
        return _Connection(bus, bus.cycle_reader(turns[0].block), turns, holds)

    def read_state(self) -> JointState:
        """Read the positions of all joints with one request.

        Servos that stay silent are asked again, within the bus's `budget_s`. Raises BusError when
        a servo reports a hardware error or was stopped by its watchdog.
        """
        connected, t_ns = self._connected, self._clock.now_ns()
        self._check_watchdog(t_ns)
        turn = connected.turns[self._cycles % CYCLES]
        self._cycles += 1
        found = connected.reader.read(turn.block, self.config.bus.budget_s)
        self._last = found
        if turn.health:
            self._last_health = found
        if turn.guards:
            self._note_guards(found)
        if turn.extra is not None:
            self._read_guard(turn.extra, found, t_ns)
        if found.error.any() or any(self._alarms):
            self._alarms = self._describe_alarms(found)
            if any(self._alarms):
                ids = [i for i, text in zip(self._all_ids, self._alarms, strict=True) if text]
                texts = self._joint_alarms(self._alarms)
                raise BusError(alarm_message(self.config, texts, ids))
        if self._lost:
            lost = zip(self.config.joints, self._joint_alarms(self._lost_texts), strict=True)
            raise BusError("; ".join(f"{joint.name} {text}" for joint, text in lost if text))
        ticks, valid = found.block.raw("present_position", found.rows), found.valid
        age_ns = found.age_ns
        if self._joint_of_shadow:
            ticks = ticks[: len(self._ids)]
            valid, age_ns = self._with_shadows(valid, age_ns)
        position_rad = (ticks - self._zero_tick) * self._rad_per_tick
        if not found.all_valid:
            position_rad = np.where(valid, position_rad, np.nan)
        return JointState(t_ns, position_rad, valid, age_ns)

    def _with_shadows(self, valid: Mask, age_ns: I64) -> tuple[Mask, I64]:
        """`valid` and `age_ns` of all servos by joint: a joint is as good as its worse servo."""
        joints = len(self._ids)
        by_joint = valid[:joints].copy(), age_ns[:joints].copy()
        for shadow, joint in enumerate(self._joint_of_shadow, start=joints):
            by_joint[0][joint] &= valid[shadow]
            by_joint[1][joint] = max(by_joint[1][joint], age_ns[shadow])
        return by_joint

    def _read_guard(self, block: Block, found: BlockReading, start_ns: int) -> None:
        """Read `block`, unless a servo is silent in `found`: that took the cycle's time already."""
        if not found.all_valid:
            silent = zip(self._all_ids, found.valid.tolist(), strict=True)
            self._torque |= {i: "unknown" for i, valid in silent if not valid}
            return
        budget_s = self.config.bus.budget_s
        left_s = budget_s - (self._clock.now_ns() - start_ns) / 1e9
        self._note_guards(self._connected.reader.read(block, max(left_s, budget_s / 2)))

    def _note_guards(self, found: BlockReading) -> None:
        """Take what `found` says about the guards. A loss stays until torque goes on again."""
        if "torque_enable" in found.block:
            self._torque |= torque_states(self._servos, found)
        if self._armed:
            connected = self._connected
            for at, text in losses(connected.bus, self._family, found, connected.holds):
                self._lost.setdefault(at, text)

    @property
    def _lost_texts(self) -> tuple[str, ...]:
        return tuple(self._lost.get(at, "") for at in range(len(self._servos)))

    def _joint_alarms(self, texts: Sequence[str]) -> tuple[str, ...]:
        """The texts of all servos by joint."""
        joined = list(texts[: len(self._ids)])
        shadows = zip(self._joint_of_shadow, self._servos[len(self._ids) :], strict=True)
        for (joint, shadow), text in zip(shadows, texts[len(self._ids) :], strict=True):
            if text:
                of_shadow = f"its shadow (id {shadow.id}): {text}"
                joined[joint] = "; ".join(filter(None, (joined[joint], of_shadow)))
        return tuple(joined)

    def health(self) -> Health | None:
        """The newest voltage, temperature, current and alarms; None before the first `read_state`.

        Nothing is asked of the bus: `read_state` reads these values along with the positions, all
        of them in every tenth cycle, and those next to the position in every cycle.
        """
        if self._last is None or self._last_health is None:
            return None
        alarms = self._alarms
        if self._lost:
            both = zip(alarms, self._lost_texts, strict=True)
            alarms = tuple(alarm or lost for alarm, lost in both)
        if self._joint_of_shadow:
            alarms = self._joint_alarms(alarms)
        return newest_health(self._last, self._last_health, alarms, self._joint_of_shadow)

    def write_goal(self, position_rad: F64) -> None:
        """Send the goals `position_rad` float64 [n], clipped to the joints' limits.

        The servos do not answer. Raises SafetyFault on a goal that is NaN or infinite.
        """
        if not np.isfinite(position_rad).all():
            raise SafetyFault(f"{self.config.name}: a goal is not a number: {position_rad}")
        inside_rad = np.clip(position_rad, self._lower_rad, self._upper_rad)
        ticks = self._zero_tick + np.rint(inside_rad / self._rad_per_tick).astype(np.int64)
        self.bus.sync_write("goal_position", self._ids, ticks.tolist())

    def check_limits(self) -> None:
        """Raise BusError if a joint's limits lie beyond its servo's own, read at `connect`."""
        check_limits(self.config, self._connected.holds)

    def enable_torque(self, poll: Callable[[], None] = lambda: None) -> F64:
        """Hold every joint where it is, limit the servos' own speed, and arm their watchdogs.

        Returns the goals that the servos now hold, float64 [n] rad. A joint that moved meanwhile is
        held where it was when torque came on. `poll` is called between the steps, and may raise to
        break off. Raises BusError when a servo misbehaves or would refuse the limits. After any
        exception all torque is off.
        """
        connected = self._connected
        self._armed = False
        self._lost = {}
        try:
            self.check_limits()
            self._torque = dict.fromkeys(self._all_ids, "unknown")
            goals = hold_all(connected.bus, self._family, connected.holds, poll)
        except BaseException as fault:
            try:
                self.disable_torque()
            except BusError as stiff:
                if isinstance(fault, BusError):
                    raise type(fault)(f"{fault}; {stiff}") from fault
                raise
            raise
        self._torque = dict.fromkeys(self._all_ids, "on")
        self._armed = True
        self._watchdog_since_ns = self._clock.now_ns()
        ticks = np.array([goals[servo_id] for servo_id in self._ids])
        goal_rad: F64 = (ticks - self._zero_tick) * self._rad_per_tick
        return goal_rad

    def read_torque(self) -> None:
        """Read every servo's torque into `torque`. One that does not answer is unknown."""
        found = self.bus.sync_read("torque_enable", self._all_ids)
        for servo_id, raw, valid in zip(self._all_ids, found.raw, found.valid, strict=True):
            self._torque[servo_id] = "unknown" if not valid else "on" if raw else "off"

    def disable_torque(self) -> None:
        """Switch torque off in every servo that can be reached.

        Raises BusError that names the joints that did not confirm. Does nothing before `connect`.
        """
        self._armed = False
        self._lost = {}
        self._watchdog_since_ns = None
        if self._connection is None:
            return
        if faults := torque_off(self.bus, self._all_ids, self._torque):
            name_of = {servo.id: servo.name for servo in self._servos}
            named = "; ".join(f"{name_of[i]}: {fault}" for i, fault in faults.items())
            raise BusError(f"torque may still be on: {named}")

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
            return ("",) * len(self._servos)
        status = self.bus.sync_read("hardware_error_status", self._all_ids)
        describe = self._family.describe_alarms
        return tuple(
            ((describe(raw) if valid else "no answer when asked for it") or "gone again")
            if alarm
            else ""
            for alarm, raw, valid in zip(alarmed, status.raw.tolist(), status.valid, strict=True)
        )
