"""The models of the `safety` part of robot.yaml.

The defaults suit a table-top arm with hobby servos. A comment gives the reason for each.
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

# Pure function: joint positions, float64 [J] rad -> None if allowed, or the reason if not. The
# reason has no numbers in it, as refusals are counted by reason.
Workspace = Callable[[npt.NDArray[np.float64]], str | None]


class HealthConfig(Strict):
    """The allowed range of the servos' own readings. Missing readings are ignored."""

    voltage_min_v: float | None = None  # no default: it depends on the servo model and the supply
    voltage_max_v: float | None = None
    # Below the 70 to 80 C at which servos switch themselves off and drop the arm.
    temperature_max_c: float = 65.0
    current_max_a: PositiveFloat | None = None
    # Starting a motion draws current, and a load lowers the supply voltage for a moment.
    longest_s: float = Field(default=0.5, ge=0.0)


class GpioConfig(Strict):
    """A GPIO line of /dev/gpiochipN with an emergency stop button.

    The button connects the line to ground and opens when pressed, so a broken wire also stops.
    """

    chip: str
    line: NonNegativeInt


class EstopConfig(Strict):
    """The sources of an emergency stop besides Ctrl-C. The control process reads them."""

    socket: str | None = None  # path of a socket: any datagram to it stops the robot
    gpio: GpioConfig | None = None


class SafetyConfig(Strict):
    """The limits that the control loop checks; see `runtime.safety.safety`."""

    # From rest to 5 rad/s in 20 ms: no servo of this size is faster.
    acceleration_max_rad_s2: PositiveFloat = 250.0
    # Twice the time after which a 50 Hz bus without answers is a fault.
    state_age_max_s: PositiveFloat = 0.2
    # The policy process sends a heartbeat every 20 ms; host stalls of 100 ms are common.
    policy_silent_s: PositiveFloat = 0.25
    policy_lost_s: PositiveFloat = 1.0  # longer than any stall
    # Holding for longer only heats the servos.
    hold_max_s: PositiveFloat = 10.0
    # The pose before the torque goes off, so that the arm does not drop; none: off at once.
    safe_pose_rad: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    safe_pose_timeout_s: PositiveFloat = 10.0
    # A joint 20 degrees behind its command for a second is blocked or drags something along.
    stall_error_rad: PositiveFloat = 0.35
    stall_s: PositiveFloat = 1.0
    workspace: str | None = None  # `module:function`, a `Workspace`
    health: HealthConfig = HealthConfig()
    estop: EstopConfig = EstopConfig()


def load_workspace(name: str | None) -> Workspace:
    """Import the function `name`, written `module:function`; None allows every position.

    Raises ConfigError if it cannot be imported.
    """
    if name is None:
        return lambda position_rad: None
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"safety.workspace: {name}: {error}; name a function as module:function that Python "
            "can import from here"
        ) from error
    return found  # type: ignore[no-any-return]
