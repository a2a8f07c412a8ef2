"""Safety: what stands between any target and the motors. It denies unless it knows better.

    DISARMED --arm--> HOLD <--> ARMED          torque is on in HOLD, ARMED and SAFE_POSE only
                        |         |
                        +----+----+
                 nothing to  |  follow for too long
                             v
                        SAFE_POSE --there--> TORQUE_OFF <-- e-stop
    any --> FAULT       something is wrong with the robot

SAFE_POSE leads to TORQUE_OFF alone; TORQUE_OFF and FAULT are final: only a new run, which begins
DISARMED, leaves them.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hw_drivers.robot.robot import Health
from runtime.config.robot_yaml import ControlConfig
from runtime.config.safety_yaml import SafetyConfig, load_workspace
from runtime.mailbox import Vector
from runtime.safety.health import Debounce, HealthMonitor
from runtime.safety.motion_limiter import Limits, MotionLimiter, Move
from v2a.errors import SafetyFault

# A joint that rests on its end stop reads a little beyond it: some 3 degrees are forgiven.
ARM_TOLERANCE_RAD = 0.05


class State(Enum):
    """What the motors may do."""

    DISARMED = "disarmed"  # torque off
    ARMED = "armed"  # follows a chunk
    HOLD = "hold"  # torque on, comes to rest and stays
    SAFE_POSE = "safe pose"  # on its way to where it can be let go
    TORQUE_OFF = "torque off"  # stopped on purpose, for the rest of the run
    FAULT = "fault"  # torque off for the rest of the run


_NEXT = {
    State.DISARMED: {State.HOLD, State.TORQUE_OFF, State.FAULT},
    State.HOLD: {State.DISARMED, State.ARMED, State.SAFE_POSE, State.TORQUE_OFF, State.FAULT},
    State.ARMED: {State.DISARMED, State.HOLD, State.SAFE_POSE, State.TORQUE_OFF, State.FAULT},
    State.SAFE_POSE: {State.DISARMED, State.TORQUE_OFF, State.FAULT},
    State.TORQUE_OFF: {State.FAULT},
    State.FAULT: set[State](),
}


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, and why."""

    t_ns: int
    state: State
    reason: str


class SafetyRecord:
    """What safety decided: each change of state, and how often each rule spoke."""

    def __init__(self) -> None:
        self.changes = deque([Change(0, State.DISARMED, "start")], maxlen=1000)
        self.counts: Counter[str] = Counter()

    @property
    def state(self) -> State:
        return self.changes[-1].state

    @property
    def torque_on(self) -> bool:
        return self.state in (State.ARMED, State.HOLD, State.SAFE_POSE)


class Safety(SafetyRecord):
    """Judges every command. Not thread-safe: the control loop owns it.

    Methods that raise SafetyFault have changed the state first; the caller turns the torque off.
    """

    def __init__(
        self,
        limits: Limits,
        period_s: float,
        control: ControlConfig,
        config: SafetyConfig,
    ) -> None:
        super().__init__()
        self._limits = limits
        self._limiter = MotionLimiter(limits, period_s)
        self._control = control
        self._config = config
        self._workspace = load_workspace(config.workspace)
        self._health = HealthMonitor(limits.names, config.health)
        self._stall = Debounce(len(limits.names), config.stall_s)
        self._serial_faults = 0
        self._command = np.full(len(limits.names), np.nan)
        self._last_step = np.zeros(len(limits.names))

    @property
    def command_rad(self) -> Vector:
        """The last allowed command, float64 [J] rad; NaN before the first arming."""
        return self._command

    def arm(self, now_ns: int, present_rad: Vector) -> None:
        """Begin to hold where the joints are. Raises SafetyFault when that can't be done safely."""
        if self.state not in (State.DISARMED, State.HOLD, State.ARMED):
            last = self.changes[-1]
            raise SafetyFault(f"can't arm after a {last.state.value} ({last.reason}); start anew")
        inside = self._limiter.inside(present_rad)
        # Written so that NaN, which compares false, is refused.
        outside = ~(np.abs(present_rad - inside) <= ARM_TOLERANCE_RAD)
        if outside.any():
            raise SafetyFault(f"can't arm: {self._where(outside, present_rad)}; move it by hand")
        if why_not := self._workspace(inside):
            raise SafetyFault(f"can't arm: {why_not}; move it by hand")
        self._command = inside
        self._last_step = np.zeros_like(inside)
        self._change(now_ns, State.HOLD, "armed at the present position")

    def disarm(self, now_ns: int, reason: str) -> None:
        self._change(now_ns, State.DISARMED, reason)

    def fault(self, now_ns: int, reason: str) -> None:
        self._change(now_ns, State.FAULT, reason)

    def emergency_stop(self, now_ns: int, source: str) -> None:
        """Raises SafetyFault."""
        self._torque_off(now_ns, f"emergency stop by {source}")

    def hold(self, now_ns: int, reason: str) -> Vector:
        """Come to rest and stay. Once that lasts for `hold_max_s`, the safe stop begins."""
        self._demand(State.ARMED, State.HOLD)
        self.counts[reason] += 1
        self._change(now_ns, State.HOLD, reason)
        if now_ns - self.changes[-1].t_ns > self._config.hold_max_s * 1e9:
            self._stop_safely(now_ns, f"held for {self._config.hold_max_s:g} s: {reason}")
        return self._accept(now_ns, self._limiter.brake(self._command, self._last_step))

    def command(self, now_ns: int, target_rad: Vector, t_capture_ns: int, current: bool) -> Vector:
        """The allowed command toward `target_rad`, float64 [J] rad.

        `t_capture_ns` is when the picture behind the target was taken, `current` whether it is of
        this epoch. Range, speed and acceleration are clamped and counted; anything else wrong
        means hold.
        """
        self._demand(State.ARMED, State.HOLD)
        if not current:
            return self.hold(now_ns, "target of an older epoch")
        if now_ns - t_capture_ns > self._control.command_age_max_s * 1e9:
            return self.hold(now_ns, "target too old")
        if not np.isfinite(target_rad).all():
            return self.hold(now_ns, "target is not finite")
        move = self._limiter.step_toward(self._command, self._last_step, target_rad)
        if why_not := self._workspace(move.command_rad):
            return self.hold(now_ns, f"workspace: {why_not}")
        self._change(now_ns, State.ARMED, "following")
        return self._accept(now_ns, move)

    def policy_silent(self, now_ns: int, heard_ns: int) -> bool:
        """Whether the policy's process, last heard at `heard_ns`, is silent: then hold. Once it
        counts as lost, the safe stop begins. Raises SafetyFault where that is torque off."""
        silent_s = (now_ns - heard_ns) / 1e9
        if self.state in (State.ARMED, State.HOLD) and silent_s > self._config.policy_lost_s:
            self._stop_safely(now_ns, f"the policy has been silent for {silent_s:.2f} s")
        return silent_s > self._config.policy_silent_s

    def reading_stale(self, now_ns: int, read_ns: int) -> bool:
        """Whether the joints' last good reading, of `read_ns`, is too old to move on."""
        return now_ns - read_ns > self._config.state_age_max_s * 1e9

    def safe_pose(self, now_ns: int) -> Vector:
        """The next command on the way to the safe pose. Raises SafetyFault at its end: there, or
        out of time."""
        self._demand(State.SAFE_POSE)
        began = self.changes[-1]
        pose_rad = self._limiter.inside(np.array(self._config.safe_pose_rad))
        if np.allclose(pose_rad, self._command, rtol=0.0, atol=1e-6):
            self._torque_off(now_ns, f"{began.reason}; in the safe pose")
        if now_ns - began.t_ns > self._config.safe_pose_timeout_s * 1e9:
            self._torque_off(now_ns, f"{began.reason}; did not reach the safe pose in time")
        move = self._limiter.step_toward(self._command, self._last_step, pose_rad)
        return self._accept(now_ns, move)

    def check_following(self, now_ns: int, position_rad: Vector) -> None:
        """Judge where the joints are. Raises SafetyFault on a joint that has stopped following."""
        error_rad = np.abs(position_rad - self._command)
        apart = self.torque_on & (error_rad > self._config.stall_error_rad)
        if stalled := self._stall.bad(now_ns, apart):
            named = ", ".join(f"{self._limits.names[j]} by {error_rad[j]:.2f} rad" for j in stalled)
            self._raise_fault(now_ns, f"stalled, behind the command: {named}; see what holds it")

    def health(self, now_ns: int, health: Health) -> None:
        """Judge what the servos report. Raises SafetyFault on a fault."""
        if faults := self._health.faults(health):
            self._raise_fault(now_ns, "; ".join(faults))

    def serial(self, now_ns: int, fault: str | None) -> None:
        """Judge one bus cycle, `fault` saying what went wrong; too many in a row are a fault."""
        if fault is None:
            self._serial_faults = 0
            return
        self._serial_faults += 1
        self.counts["serial"] += 1
        if self._serial_faults >= self._control.serial_faults_max:
            text = f"{self._serial_faults} bad bus cycles in a row, the last: {fault}"
            self._raise_fault(now_ns, f"{text}; check the servos' power and cables")

    def _accept(self, now_ns: int, move: Move) -> Vector:
        """The move where the workspace allows it, else stay; either way past the last gate."""
        after = self._command if self._workspace(move.command_rad) else move.command_rad
        if objection := self._limiter.objection(self._command, after):
            self._raise_fault(now_ns, f"a command that must not be sent: {objection}")
        self.counts.update(move.clamps)
        self._last_step = after - self._command
        self._command = after
        return after

    def _demand(self, *states: State) -> None:
        if self.state not in states:
            raise SafetyFault(f"a command while {self.state.value}: arm first")

    def _stop_safely(self, now_ns: int, reason: str) -> None:
        if self._config.safe_pose_rad is None:
            self._torque_off(now_ns, reason)
        self._change(now_ns, State.SAFE_POSE, reason)

    def _torque_off(self, now_ns: int, reason: str) -> None:
        self._change(now_ns, State.TORQUE_OFF, reason)
        raise SafetyFault(f"torque off: {reason}; start anew")

    def _raise_fault(self, now_ns: int, reason: str) -> None:
        self.fault(now_ns, reason)
        raise SafetyFault(reason)

    def _change(self, now_ns: int, state: State, reason: str) -> None:
        if state in _NEXT[self.state]:
            self.changes.append(Change(now_ns, state, reason))

    def _where(self, wrong: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], at: Vector) -> str:
        limits = self._limits
        return ", ".join(
            f"{limits.names[j]} is at {at[j]:.3f} rad, "
            f"outside {limits.lower_rad[j]:.3f}..{limits.upper_rad[j]:.3f}"
            for j in np.flatnonzero(wrong)
        )
