"""`RunSummary`: the contents of `summary.json`, and of the `summary` record of a recording."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Literal

from pydantic import Field

from hw_drivers.robot.torque import TorqueState
from runtime.host.run_delay import ThreadTimes
from v2a.measured import Measured, Number, Times, absent


class Spread(Measured):
    """The distribution of a set of values, all in one unit."""

    n: int = Field(description="number of values")
    mean: Number = Field(description="mean")
    p50: Number = Field(description="median")
    p99: Number = Field(description="99th percentile")
    max: Number = Field(description="largest")


class Dropped(Measured):
    """What was lost on the way, by kind."""

    messages_of_an_older_epoch: int = Field(
        description="messages that arrived after a reset and belonged to the episode before it"
    )
    spans: int = Field(description="spans that a ring overwrote before they were counted")
    recorded_messages: int = Field(
        description="messages that were offered to the recorder and are not in the recording"
    )


class Moment(Measured):
    """One moment on two clocks."""

    utc_ns: int = Field(description="time since 1970 (UTC), ns")
    monotonic_ns: int = Field(description="the same on the machine's monotonic clock, ns")


def utc_text(utc_ns: int) -> str:
    """ISO 8601 in UTC with microseconds, such as 2026-11-28T01:30:00.000000Z."""
    whole, rest_ns = divmod(utc_ns, 1_000_000_000)
    at = datetime.fromtimestamp(whole, timezone.utc)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{rest_ns // 1000:06d}Z"


class StateChange(Measured):
    """One change of the safety state."""

    t_s: float = Field(description="time since the start of the run, s")
    state: str = Field(
        description="the new state: disarmed, armed, hold, safe pose, torque off or fault"
    )
    reason: str = Field(description="why it changed")


class CpuTime(Measured):
    """CPU time of the policy's process since it began."""

    user_s: float = Field(description="in user code, s")
    system_s: float = Field(description="in the kernel, s")


class RunSummary(Measured):
    """What happened in one run, from its start to the moment of asking.

    The runtime writes it at the end as `summary.json` beside the recording, and `v2a run --json`
    prints it. Times are in ms unless the key names another unit, angles in rad. A figure that could
    not be measured is `null` in JSON and NaN in Python. Lockstep has no threads, so it leaves out
    `threads`, `scheduling` and `hung`.
    """

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    started_utc: str | None = absent("date and time of the start in UTC, as in ISO 8601")
    start: Moment | None = absent("start of the run; zero of all times in the recording")
    end: Moment | None = absent("when this summary was made")
    robot: str = Field(description="`robot.name` of robot.yaml")
    policy: str = Field(description="name of the policy in the bundle")
    dry_run: bool | None = Field(
        default=None,
        description="whether the robot was virtual, so that nothing moved; null: an older v2a, "
        "which did not say",
    )
    seconds: float = Field(description="length of the run, s")
    stages: dict[str, Times] = Field(description="stage -> how long it took on its thread")
    gpu_stages: dict[str, Times] = Field(
        description="stage -> how long its kernels took on the GPU, without copies"
    )
    ages: dict[str, Times] = Field(
        description="condition_age, chunk_age and frame_to_motor -> how old the data was when used"
    )
    ticks: int = Field(description="number of control ticks")
    missed_ticks: dict[str, int] = Field(
        description="cause (late, bus, no_chunk) -> number of ticks without their work"
    )
    late: Times = Field(description="how long after its grid point each control tick began")
    realtime: dict[str, str] = Field(
        description="what the control process asked of the kernel -> what the kernel gave; empty "
        "where the control loop is a thread of the policy's process"
    )
    seam_jumps_rad: Spread = Field(
        description="jump of the target at the switch to a new chunk, before blending, rad"
    )
    counts: dict[str, dict[str, int]] = Field(description="worker -> event -> how often")
    dropped: Dropped = Field(description="what was lost")
    safety: tuple[StateChange, ...] = Field(description="changes of the safety state, oldest first")
    torque: dict[str, TorqueState] = Field(
        default={},
        description="joint -> what its servo confirmed last: on, off or unknown; torque is off for "
        "certain only if all are off",
    )
    loose_limits: tuple[str, ...] = Field(
        default=(), description="each limit of robot.yaml that allows more than its default"
    )
    torque_fault: str | None = Field(
        description="why torque may have been left on; null if no fault was seen"
    )
    stop_latch: str | None = absent(
        "what became of an emergency stop: it is kept, so that no later run arms until "
        "`v2a robot clear-stop`, or why it could not be kept"
    )
    recording_fault: str | None = Field(
        description="why the recording stopped early; null if it did not"
    )
    camera: dict[str, str] = Field(
        default={},
        description="what the camera negotiated (source, size, pixel format, pace), and the rate "
        "that was measured at the end",
    )
    cpu: CpuTime = Field(description="CPU time of the policy's process")
    versions: dict[str, str] = Field(description="package -> version; also python and machine")
    threads: dict[str, ThreadTimes] | None = absent("thread -> its CPU time and waits")
    scheduling: dict[str, str] | None = absent("thread -> the niceness that it was given")
    hung: tuple[str, ...] | None = absent("threads that did not end when told to")
