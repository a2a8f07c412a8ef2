"""Safety: what stands between any target and the motors. It denies unless it knows better.

DISARMED --arm--> HOLD <--> ARMED      torque is on in HOLD and ARMED only
    any ---------> FAULT               final: only a new run leaves it
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass
from enum import Enum

import numpy as np

from runtime.mailbox import Vector
from v2a.errors import SafetyFault

# A joint that rests on its end stop reads a little beyond it: some 3 degrees are forgiven.
ARM_TOLERANCE_RAD = 0.05


class State(Enum):
    """What the motors may do."""

    DISARMED = "disarmed"  # torque off
    ARMED = "armed"  # follows a chunk
    HOLD = "hold"  # torque on, stays at the last command
    FAULT = "fault"  # torque off for the rest of the run


@dataclass(frozen=True, slots=True)
class Change:
    """One change of state, and why."""

    t_ns: int
    state: State
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """Per joint, float64 [J]: range in rad and largest speed in rad/s."""

    names: tuple[str, ...]
    lower_rad: Vector
    upper_rad: Vector
    velocity_rad_s: Vector


class Safety:
    """Judges every command. Not thread-safe: the control loop owns it."""

    def __init__(
        self, limits: Limits, period_s: float, command_age_max_s: float, serial_faults_max: int
    ) -> None:
        self._limits = limits
        # One nominal step whatever the tick's real length: a late tick must not leap.
        self._step_rad = limits.velocity_rad_s * period_s
        self._age_max_ns = round(command_age_max_s * 1e9)
        self._serial_faults_max = serial_faults_max
        self._serial_faults = 0
        self._command = np.full(len(limits.names), np.nan)
        self.changes = deque([Change(0, State.DISARMED, "start")], maxlen=1000)
        self.counts: Counter[str] = Counter()

    @property
    def state(self) -> State:
        return self.changes[-1].state

    @property
    def torque_on(self) -> bool:
        return self.state in (State.ARMED, State.HOLD)

    @property
    def command_rad(self) -> Vector:
        """The last allowed command, float64 [J] rad; NaN before the first arming."""
        return self._command

    def arm(self, now_ns: int, present_rad: Vector) -> None:
        """Begin to hold where the joints are. Raises SafetyFault when that can't be done safely."""
        if self.state is State.FAULT:
            raise SafetyFault(f"can't arm after a fault ({self.changes[-1].reason}); start anew")
        inside = np.clip(present_rad, self._limits.lower_rad, self._limits.upper_rad)
        # Written so that NaN, which compares false, is refused.
        outside = ~(np.abs(present_rad - inside) <= ARM_TOLERANCE_RAD)
        if outside.any():
            raise SafetyFault(f"can't arm: {self._where(outside, present_rad)}; move it by hand")
        self._command = inside
        self._change(now_ns, State.HOLD, "armed at the present position")

    def disarm(self, now_ns: int, reason: str) -> None:
        if self.state is not State.FAULT:
            self._change(now_ns, State.DISARMED, reason)

    def fault(self, now_ns: int, reason: str) -> None:
        if self.state is not State.FAULT:
            self._change(now_ns, State.FAULT, reason)

    def hold(self, now_ns: int, reason: str) -> Vector:
        """Stay at the last command."""
        self.counts[reason] += 1
        self._change(now_ns, State.HOLD, reason)
        return self._command

    def command(self, now_ns: int, target_rad: Vector, t_capture_ns: int, current: bool) -> Vector:
        """The allowed command toward `target_rad`, float64 [J] rad.

        `t_capture_ns` is when the picture behind the target was taken, `current` whether it is of
        this epoch. Range and speed are clamped and counted; anything else wrong means hold.
        """
        if not self.torque_on:
            raise SafetyFault(f"a command while {self.state.value}: arm first")
        if not current:
            return self.hold(now_ns, "target of an older epoch")
        if now_ns - t_capture_ns > self._age_max_ns:
            return self.hold(now_ns, "target too old")
        if not np.isfinite(target_rad).all():
            return self.hold(now_ns, "target is not finite")
        self._change(now_ns, State.ARMED, "following")
        self._command = self._toward(target_rad)
        return self._command

    def serial(self, now_ns: int, fault: str | None) -> None:
        """Judge one bus cycle, `fault` saying what went wrong; too many in a row are a fault."""
        if fault is None:
            self._serial_faults = 0
            return
        self._serial_faults += 1
        self.counts["serial"] += 1
        if self._serial_faults >= self._serial_faults_max:
            text = f"{self._serial_faults} bad bus cycles in a row, the last: {fault}"
            self.fault(now_ns, text)
            raise SafetyFault(f"{text}; check the servos' power and cables")

    def _toward(self, target_rad: Vector) -> Vector:
        """Between the last command and the target in range: so itself in range."""
        inside = np.clip(target_rad, self._limits.lower_rad, self._limits.upper_rad)
        wish = inside - self._command
        step = np.clip(wish, -self._step_rad, self._step_rad)
        command = np.clip(self._command + step, self._limits.lower_rad, self._limits.upper_rad)
        self.counts["limit_clamps"] += bool((inside != target_rad).any())
        self.counts["velocity_clamps"] += bool((wish != step).any())
        return np.asarray(command)

    def _change(self, now_ns: int, state: State, reason: str) -> None:
        if state is not self.state:
            self.changes.append(Change(now_ns, state, reason))

    def _where(self, wrong: np.ndarray[tuple[int, ...], np.dtype[np.bool_]], at: Vector) -> str:
        limits = self._limits
        return ", ".join(
            f"{limits.names[j]} is at {at[j]:.3f} rad, "
            f"outside {limits.lower_rad[j]:.3f}..{limits.upper_rad[j]:.3f}"
            for j in np.flatnonzero(wrong)
        )
