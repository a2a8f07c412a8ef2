"""The `safety` part of robot.yaml: what every command, servo and silence is judged by.

The defaults suit a table-top arm of hobby servos. Each has its reason beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveFloat

from v2a.config import Strict
from v2a.errors import ConfigError

# Joint positions float64 [J] rad -> None, or in constant words why they are not allowed. Pure.
Workspace = Callable[[npt.NDArray[np.float64]], str | None]


class HealthConfig(Strict):
    """What the servos may report. What no servo reports is not judged."""

    voltage_min_v: float | None = None  # depends on the servo's model and the supply: name yours
    voltage_max_v: float | None = None
    # The servos switch themselves off at 70 to 80 C and drop the arm: before that, on purpose.
    temperature_max_c: float = 65.0
    current_max_a: PositiveFloat | None = None
    longest_s: float = Field(default=0.5, ge=0.0)  # a start draws current, a load dips the supply


class GpioConfig(Strict):
    """A line of /dev/gpiochipN with a contact to ground that opens when the button is pressed
    (so that a torn wire stops the robot, too)."""

    chip: str
    line: NonNegativeInt


class EstopConfig(Strict):
    """Where an emergency stop may come from, besides Ctrl-C. The control process listens."""

    socket: str | None = None  # any datagram to this path of the file system
    gpio: GpioConfig | None = None


class SafetyConfig(Strict):
    """What the control loop holds every command against; see `runtime.safety.safety`."""

    # From rest to 5 rad/s in 20 ms: rounds off what no servo of this size could follow.
    acceleration_max_rad_s2: PositiveFloat = 250.0
    # Twice as long as it takes a bus at 50 Hz to be given up.
    state_age_max_s: PositiveFloat = 0.2
    # The policy's process gives a sign of life every 20 ms; host stalls of 100 ms are common.
    policy_silent_s: PositiveFloat = 0.25
    policy_lost_s: PositiveFloat = 1.0  # by then it is not a stall
    # An arm that nobody moves for so long only heats its servos.
    hold_max_s: PositiveFloat = 10.0
    # Where to go before torque goes off, so that the arm does not drop; none: off where it is.
    safe_pose_rad: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    safe_pose_timeout_s: PositiveFloat = 10.0
    # Behind its command by 20 degrees for a second: it is held, or it drags something along.
    stall_error_rad: PositiveFloat = 0.35
    stall_s: PositiveFloat = 1.0
    workspace: str | None = None  # `module:function`, a `Workspace`
    health: HealthConfig = HealthConfig()
    estop: EstopConfig = EstopConfig()


def load_workspace(name: str | None) -> Workspace:
    """The function of this name; none allows everything. Raises ConfigError on no such function."""
    if name is None:
        return lambda position_rad: None
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"safety.workspace: {name}: {error}; name it module:function, importable from here"
        ) from error
    return found  # type: ignore[no-any-return]
