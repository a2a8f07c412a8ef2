"""The models of the `safety` part of robot.yaml.

The defaults suit a table-top arm with hobby servos. A comment gives the reason for each.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, NonNegativeInt, PositiveFloat, ValidationInfo, field_validator

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
    workspace: str | None = None  # `FILE.py:function`, beside robot.yaml: a `Workspace`
    health: HealthConfig = HealthConfig()
    estop: EstopConfig = EstopConfig()

    @field_validator("workspace")
    @classmethod
    def _beside_the_file(cls, name: str | None, info: ValidationInfo) -> str | None:
        """The file's absolute path: the control process runs in another folder than the user."""
        folder = (info.context or {}).get("folder")
        if name is None or folder is None:
            return name
        file, _, function = name.rpartition(":")
        path = str((folder / file).absolute())
        return f"{path.removesuffix('.py')}.py:{function}"


def load_workspace(name: str | None) -> Workspace:
    """Load the function `name`, written `FILE.py:function`; None allows every position.

    The file is executed under a name of its own, so it can replace no module of v2a, and nothing
    else of its folder can be imported. Raises ConfigError if it cannot be loaded.
    """
    if name is None:
        return lambda position_rad: None
    file, _, function = name.rpartition(":")
    spec = spec_from_file_location("v2a_workspace", file)
    try:
        if spec is None or spec.loader is None:
            raise ImportError("this is no Python file")
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
        found: Workspace = getattr(module, function)
        if not callable(found):
            raise TypeError(f"{function} is no function")
    except (Exception, SystemExit) as error:  # the file is the user's, and may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"safety.workspace: {name}: {reason}; name it FILE.py:function, with a file beside "
            "robot.yaml"
        ) from error
    return found
