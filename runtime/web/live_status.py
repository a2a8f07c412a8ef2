"""`LiveStatus`: the JSON that the live page asks for ten times a second, at `/live`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

from pydantic import Field

from hw_drivers.robot.torque import TorqueState
from runtime.control.outcome import Outcome, not_off
from v2a.measured import Measured, Number, absent


class RecentTimes(Measured):
    """The last 500 durations of a stage or an age."""

    last: float = Field(description="newest, ms")
    p50: float = Field(description="median, ms")
    p99: float = Field(description="99th percentile, ms")
    max: float = Field(description="longest, ms")


class RecentChange(Measured):
    """One change of the safety state."""

    ago_s: float = Field(description="time since the change, s")
    state: str = Field(
        description="the new state: disarmed, armed, hold, safe pose, torque off or fault"
    )
    reason: str = Field(description="why it changed")


class JointStatus(Measured):
    """One joint and its servo.

    A key is missing before its first message, or if the servo has no such register. Its value is
    null if the last reading failed.
    """

    name: str = Field(description="name of the joint")
    position_rad: Number | None = absent("measured position, rad")
    command_rad: Number | None = absent("last command, rad")
    alarm: str | None = absent("what the servo reports; empty if nothing is wrong")
    voltage_v: Number | None = absent("supply voltage at the servo, V")
    temperature_c: Number | None = absent("temperature of the servo, degrees C")
    current_a: Number | None = absent("current through the servo, A")


NOT_CONFIRMED: Final = "NOT CONFIRMED: cut the motors' power"


class OutcomeStatus(Measured):
    """What the control process has confirmed; also the answer to a press of STOP.

    `confirmed` is true only if the control process says that nothing changes any more and that
    every joint's servo was asked and answered that its torque is off.
    """

    confirmed: bool = Field(description="torque is off for good, as every joint confirmed")
    torque: dict[str, TorqueState] = Field(
        description="joint -> what its servo confirmed last: on, off, or unknown"
    )
    state: str | None = Field(
        description="safety state; null if the control process said nothing yet"
    )
    reason: str = Field(description="reason for the state, or what is missing")
    run: str | None = Field(description="random id of the run; null if unknown")
    final: bool = Field(description="the control process has tried torque-off and ended its work")
    text: str = Field(description="what a person must know; empty while the run goes on")

    @classmethod
    def of(cls, outcome: Outcome | None, gone: bool, joints: Sequence[str]) -> OutcomeStatus:
        """The status after the newest `outcome`. `gone`: the control process ended."""
        final = outcome is not None and outcome.final
        if outcome is None or (gone and not final):  # what was confirmed before is out of date
            why = "the control process " + (
                "ended without saying how" if gone else "has not said anything yet"
            )
            return cls(
                confirmed=False,
                torque=dict.fromkeys(joints, "unknown"),
                state=None,
                reason=why,
                run=outcome and outcome.run,
                final=False,
                text=f"{NOT_CONFIRMED} ({why})" if gone else "",
            )
        text = ""
        if final:
            text = f"{NOT_CONFIRMED} ({not_off(outcome.torque)})"
        if outcome.confirmed:
            text = f"Stopped: torque is off, confirmed by all {len(outcome.torque)} joints"
        return cls(
            confirmed=outcome.confirmed,
            torque=outcome.torque,
            state=outcome.state.value,
            reason=outcome.fault or outcome.reason,
            run=outcome.run,
            final=final,
            text=text,
        )

    def pressed(self) -> OutcomeStatus:
        """The same as the answer to a press, which never leaves out what to do."""
        late = f"{NOT_CONFIRMED} (the control process did not say in time that torque is off)"
        if self.final:
            return self
        # What was confirmed before the press is out of date.
        torque = dict.fromkeys(self.torque, "unknown")
        return self.model_copy(update={"text": self.text or late, "torque": torque})


class LiveStatus(Measured):
    """The newest state of a run, as the live page draws it.

    Counters are null until the policy's process has sent its first ones.
    """

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    robot: str = Field(description="`robot.name` of robot.yaml")
    dry_run: bool = Field(description="whether the robot is virtual, so that nothing moves")
    policy: str = Field(description="name of the policy in the bundle")
    instruction: str = Field(description="instruction at the start of the run")
    temperature_max_c: float = Field(
        description="temperature at which a servo becomes a fault, degrees C"
    )
    silent_s: float = Field(description="time since the last message of the policy's process, s")
    safety: tuple[RecentChange, ...] = Field(
        description="the last 8 changes of the safety state, oldest first"
    )
    picture: int | None = Field(description="number of the newest picture; null before the first")
    ages_ms: dict[str, RecentTimes] = Field(
        description="condition_age, chunk_age, frame_to_motor -> how old the data was when used"
    )
    stages_ms: dict[str, RecentTimes] = Field(description="stage -> how long it took on its thread")
    rates_hz: dict[str, float] = Field(
        description="frame, condition, chunk, state -> messages per second; 0 after 2 s of silence"
    )
    joints: tuple[JointStatus, ...] = Field(description="the joints, in the robot's order")
    state_age_s: float | None = Field(
        description="time since the joint positions were measured, s; null before the first"
    )
    ticks: int | None = Field(description="number of control ticks")
    missed_ticks: dict[str, int] | None = Field(
        description="cause (late, bus, no_chunk) -> number of ticks without their work"
    )
    torque_fault: str | None = Field(description="why torque may have been left on; null if not")
    outcome: OutcomeStatus = Field(
        description="what the control process itself says, also after the policy's process died"
    )
