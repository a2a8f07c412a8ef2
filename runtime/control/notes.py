"""The packets of JSON between the policy's process and the control process.

Both ends are the same installed package, so these models carry no schema version.
"""

from __future__ import annotations

import dataclasses
from typing import Literal

import numpy as np
from pydantic import Field

from hw_drivers.robot.torque import TorqueState
from runtime.config.robot_yaml import RunConfig
from runtime.host.run_delay import ThreadTimes
from runtime.safety.health import HealthRow
from runtime.safety.motion_limiter import Limits
from runtime.safety.safety import State
from v2a.measured import Measured

RobotKind = Literal["real", "virtual"]


class LimitsRow(Measured):
    """`Limits` as JSON: one value per joint, in the order of `names`."""

    names: tuple[str, ...] = Field(description="names of the joints")
    lower_rad: tuple[float, ...] = Field(description="lower end of the range, rad")
    upper_rad: tuple[float, ...] = Field(description="upper end of the range, rad")
    velocity_rad_s: tuple[float, ...] = Field(description="largest speed, rad/s")
    acceleration_rad_s2: tuple[float, ...] = Field(description="largest acceleration, rad/s^2")

    @classmethod
    def of(cls, limits: Limits) -> LimitsRow:
        """`limits` as a row."""
        return cls(**{f.name: tuple(getattr(limits, f.name)) for f in dataclasses.fields(limits)})

    def limits(self) -> Limits:
        """The `Limits` again."""
        arrays = {name: np.array(value) for name, value in self if name != "names"}
        return Limits(self.names, **arrays)


class Setup(Measured):
    """The first packet to the control process: what to run."""

    version: str = Field(description="version of v2a in the policy's process")
    robot: RobotKind = Field(description="real: the robot of `config`; virtual: a simulated one")
    limits: LimitsRow = Field(description="limits that hold for both robot and bundle")
    config: RunConfig = Field(description="all of robot.yaml, with its defaults")


class Note(Measured):
    """What the control process says seldom: five times a second, and at a change of state.

    The first note has `ready` set, the last one `ended`. Counts are totals since the start.
    """

    changes: tuple[tuple[int, State, str], ...] = Field(
        default=(),
        description="changes of the safety state since the last note that arrived: time on the "
        "monotonic clock in ns, new state, reason",
    )
    counts: dict[str, int] = Field(default={}, description="event of the loop -> how often")
    safety_counts: dict[str, int] = Field(default={}, description="event of safety -> how often")
    torque_fault: str | None = Field(default=None, description="why torque may have been left on")
    stop_latch: str | None = Field(
        default=None,
        description="how an emergency stop is kept for later runs, or why not",
    )
    torque: dict[str, TorqueState] = Field(
        default={}, description="joint -> what its servo confirmed last: on, off or unknown"
    )
    health: HealthRow | None = Field(default=None, description="newest health of the servos")
    thread: ThreadTimes | None = Field(default=None, description="times of the loop's thread")
    realtime: dict[str, str] | None = Field(
        default=None, description="what was asked of the kernel -> what it gave; in the first note"
    )
    ready: bool = Field(default=False, description="the robot is connected and the loop starts")
    closing: bool = Field(default=False, description="torque goes off, and no tick follows")
    ended: bool = Field(default=False, description="the control process ends now")
    error: str | None = Field(default=None, description="class of the exception that ended it")
    text: str | None = Field(default=None, description="text of that exception")
