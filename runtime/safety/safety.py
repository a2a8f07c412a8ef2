"""The safety layer between targets and motors. It refuses every command that it cannot verify.

    DISARMED --arm--> HOLD <--> ARMED          torque is on only in HOLD, ARMED and SAFE_POSE
                        |         |
                        +----+----+
                 no command  |  for too long
                             v
                        SAFE_POSE --arrived--> TORQUE_OFF <-- e-stop
    any --> FAULT       something is wrong with the robot

TORQUE_OFF and FAULT last for the rest of the run. A new run starts DISARMED.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum

import numpy as np

from hw_drivers.robot.robot import Health
from runtime.config.robot_yaml import ControlConfig
from runtime.config.safety_yaml import SafetyConfig, load_workspace
from runtime.mailbox import Vector
from runtime.safety.event_counts import EventCounts
from runtime.safety.health import Debounce, HealthMonitor
from runtime.safety.motion_limiter import Limits, MotionLimiter, Move
from v2a.errors import SafetyFault

# A joint that rests on its end stop reads up to about 3 degrees beyond it.
ARM_TOLERANCE_RAD = 0.05
# A longer reason is cut, so that a packet with the changes always fits the link.
REASON_MAX = 400


class State(Enum):
    """What the motors may do."""

    DISARMED = "disarmed"  # torque off
    ARMED = "armed"  # the arm follows a chunk
    HOLD = "hold"  # torque on; the arm comes to rest and stays
    SAFE_POSE = "safe pose"  # the arm moves to a pose in which torque can go off
    TORQUE_OFF = "torque off"  # a deliberate stop, for the rest of the run
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
    """One change of state and its reason."""

    t_ns: int
    state: State
    reason: str


class SafetyRecord:
    """The decisions of the safety layer: each change of state, and how often each rule applied."""

    def __init__(self) -> None:
        self.changes = deque([Change(0, State.DISARMED, "start")], maxlen=1000)
        self.counts = EventCounts()

    @property
    def state(self) -> State:
        return self.changes[-1].state

    @property
    def torque_on(self) -> bool:
        return self.state in (State.ARMED, State.HOLD, State.SAFE_POSE)


class Safety(SafetyRecord):
    """Checks every command. Not thread-safe: only the control loop calls it.

    A method changes the state before it raises SafetyFault; the caller turns the torque off.
    """

    def __init__(
        self,
        limits: Limits,
        period_s: float,
        control: ControlConfig,
        config: SafetyConfig,
    ) -> None:
        super().__init__()
        self.emergency: str | None = None  # the input that asked for an emergency stop
        self._limits = limits
        self._limiter = MotionLimiter(limits, period_s)
        self._control = control
        self._config = config
        sample_rad = self._limiter.inside(np.zeros(len(limits.names)))
        self._workspace = load_workspace(config.workspace, sample_rad)
        self._health = HealthMonitor(limits.names, config.health)
        self._stall = Debounce(len(limits.names), config.stall_s)
        self._serial_faults = 0
        self._command = np.full(len(limits.names), np.nan)
        self._last_step = np.zeros(len(limits.names))

    @property
    def command_rad(self) -> Vector:
        """The last allowed command, float64 [J] rad. NaN before the first arming."""
        return self._command

    def arm(self, now_ns: int, present_rad: Vector) -> None:
        """Begin with `present_rad`, float64 [J] rad, as the last command: the goals in the servos.

        Raises SafetyFault as `check_arming` does.
        """
        self.check_arming(present_rad)
        self._command = self._limiter.inside(present_rad)
        self._last_step = np.zeros_like(self._command)
        self._change(now_ns, State.HOLD, "armed at the present position")

    def check_arming(self, present_rad: Vector) -> None:
        """Check that the joints may be held at `present_rad`, float64 [J] rad.

        Raises SafetyFault after a stop, if a joint is out of range, or if the workspace forbids
        this position.
        """
        if self.state not in (State.DISARMED, State.HOLD, State.ARMED):
            last = self.changes[-1]
            raise SafetyFault(
                f"can't arm after {last.state.value} ({last.reason}); start a new run"
            )
        inside = self._limiter.inside(present_rad)
        # NaN compares false, so this form refuses it.
        outside = ~(np.abs(present_rad - inside) <= ARM_TOLERANCE_RAD)
        if outside.any():
            raise SafetyFault(f"can't arm: {self._where(outside, present_rad)}; move it by hand")
        if why_not := self._workspace(inside):
            raise SafetyFault(f"can't arm: {why_not}; move it by hand")

    def disarm(self, now_ns: int, reason: str) -> None:
        self._change(now_ns, State.DISARMED, reason)

    def fault(self, now_ns: int, reason: str) -> None:
        self._change(now_ns, State.FAULT, reason)

    def emergency_stop(self, now_ns: int, source: str) -> None:
        """Change to TORQUE_OFF. Always raises SafetyFault."""
        self.emergency = source
        self._torque_off(now_ns, f"emergency stop by {source}")

    def hold(self, now_ns: int, reason: str) -> Vector:
        """Return the next command that brings the arm to rest, float64 [J] rad.

        After `hold_max_s` in HOLD the safe stop begins. Raises SafetyFault if that is torque off.
        """
        self._demand(State.ARMED, State.HOLD)
        self.counts.add(reason)
        self._change(now_ns, State.HOLD, reason)
        if now_ns - self.changes[-1].t_ns > self._config.hold_max_s * 1e9:
            self._stop_safely(now_ns, f"held for {self._config.hold_max_s:g} s: {reason}")
        return self._accept(now_ns, self._limiter.brake(self._command, self._last_step))

    def command(self, now_ns: int, target_rad: Vector, t_capture_ns: int, current: bool) -> Vector:
        """Return the allowed command toward `target_rad`, both float64 [J] rad.

        `t_capture_ns` is the capture time of the image behind the target. `current` says whether
        the target is of this epoch. Range, speed and acceleration are clamped and counted. An old,
        non-finite or forbidden target leads to `hold`.
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
        """Whether the policy process, last heard at `heard_ns`, is silent, so that the arm holds.

        After `policy_lost_s` the safe stop begins. Raises SafetyFault if that is torque off.
        """
        silent_s = (now_ns - heard_ns) / 1e9
        if self.state in (State.ARMED, State.HOLD) and silent_s > self._config.policy_lost_s:
            self._stop_safely(now_ns, f"the policy has been silent for {silent_s:.2f} s")
        return silent_s > self._config.policy_silent_s

    def end_gently(self, now_ns: int, reason: str) -> bool:
        """Begin the way to the safe pose, and return whether the arm is on it.

        False means that torque can go off at once: it is off, or there is no safe pose.
        """
        if self.torque_on and self._config.safe_pose_rad is not None:
            self._change(now_ns, State.SAFE_POSE, reason)
        return self.state is State.SAFE_POSE

    def reading_stale(self, now_ns: int, read_ns: int) -> bool:
        """Whether the last complete joint reading, taken at `read_ns`, is too old for motion."""
        return now_ns - read_ns > self._config.state_age_max_s * 1e9

    def safe_pose(self, now_ns: int) -> Vector:
        """Return the next command on the way to the safe pose, float64 [J] rad.

        Raises SafetyFault when the arm arrives or `safe_pose_timeout_s` is over.
        """
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
        """Compare the measured `position_rad`, float64 [J] rad, with the last command.

        Raises SafetyFault if a joint stays more than `stall_error_rad` away for `stall_s`.
        """
        error_rad = np.abs(position_rad - self._command)
        apart = self.torque_on & (error_rad > self._config.stall_error_rad)
        if stalled := self._stall.bad(now_ns, apart):
            named = ", ".join(f"{self._limits.names[j]} by {error_rad[j]:.2f} rad" for j in stalled)
            self._raise_fault(now_ns, f"stalled, behind the command: {named}; check what blocks it")

    def health(self, now_ns: int, health: Health) -> None:
        """Check what the servos report. Raises SafetyFault on a fault."""
        if faults := self._health.faults(health):
            self._raise_fault(now_ns, "; ".join(faults))

    def serial(self, now_ns: int, fault: str | None) -> None:
        """Count a bus cycle that failed with `fault`; None is a good cycle.

        Raises SafetyFault after `serial_faults_max` failed cycles in a row.
        """
        if fault is None:
            self._serial_faults = 0
            return
        self._serial_faults += 1
        self.counts["serial"] += 1
        if self._serial_faults >= self._control.serial_faults_max:
            text = f"{self._serial_faults} bad bus cycles in a row, the last: {fault}"
            self._raise_fault(now_ns, f"{text}; check the servos' power and cables")

    def _accept(self, now_ns: int, move: Move) -> Vector:
        """Check the move and make it the last command; stay where the workspace forbids it."""
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
        raise SafetyFault(f"torque off: {reason}; start a new run")

    def _raise_fault(self, now_ns: int, reason: str) -> None:
        self.fault(now_ns, reason)
        raise SafetyFault(reason)

    def _change(self, now_ns: int, state: State, reason: str) -> None:
        if state in _NEXT[self.state]:
            self.changes.append(Change(now_ns, state, reason[:REASON_MAX]))

    def _where(self, wrong: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], at: Vector) -> str:
        limits = self._limits
        return ", ".join(
            f"{limits.names[j]} is at {at[j]:.3f} rad, "
            f"outside {limits.lower_rad[j]:.3f}..{limits.upper_rad[j]:.3f}"
            for j in np.flatnonzero(wrong)
        )
