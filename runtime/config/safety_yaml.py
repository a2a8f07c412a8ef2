"""The models of the `safety` part of robot.yaml.

The defaults suit a table-top arm with hobby servos. A comment gives the reason for each.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from typing import Annotated

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationInfo, field_validator, model_validator

from v2a.bounds import is_recorded, within
from v2a.config import Strict, faults_of_keys
from v2a.errors import ConfigError

# Pure function: joint positions, float64 [J] rad -> None if allowed, or the reason if not. The
# reason has no numbers in it, as refusals are counted by reason.
Workspace = Callable[[npt.NDArray[np.float64]], str | None]


_SUPPLIES = "servos run on 3.7 to 24 V"


class HealthConfig(Strict):
    """The allowed range of the servos' own readings. Missing readings are ignored."""

    # No default: they depend on the servo model and the supply.
    voltage_min_v: Annotated[float | None, within(3, 30, _SUPPLIES, loose="below")] = None
    voltage_max_v: Annotated[float | None, within(3, 30, _SUPPLIES)] = None
    # Below the 70 to 80 C at which servos switch themselves off and drop the arm.
    temperature_max_c: Annotated[
        float, within(30, 80, "servos switch themselves off at 70 to 80 C")
    ] = 65.0
    current_max_a: Annotated[
        float | None, within(0.01, 10, "no servo of the tables draws more")
    ] = None
    # Starting a motion draws current, and a load lowers the supply voltage for a moment.
    longest_s: Annotated[float, within(0, 5, "a blocked servo burns in seconds")] = 0.5

    @model_validator(mode="after")
    def _ordered(self, info: ValidationInfo) -> HealthConfig:
        low, high = self.voltage_min_v, self.voltage_max_v
        if low is not None and high is not None and low >= high and not is_recorded(info):
            text = f"must be below voltage_max_v (got {low:g} and {high:g})"
            raise faults_of_keys([("voltage_min_v", text)])
        return self


class GpioConfig(Strict):
    """A GPIO line of /dev/gpiochipN with an emergency stop button.

    The button connects the line to ground and opens when pressed, so a broken wire also stops.
    """

    chip: str = Field(min_length=1, max_length=4096)
    line: int = Field(ge=0, le=1023)


_SOCKET_PATH_MAX = 107  # unix(7): sun_path has 108 bytes with the final 0


class EstopConfig(Strict):
    """The sources of an emergency stop besides Ctrl-C. The control process reads them."""

    # Path of a socket: any datagram to it stops the robot. The kernel allows 107 bytes.
    socket: Annotated[str, Field(min_length=1, pattern=r"^[^\x00]+$")] | None = None
    gpio: GpioConfig | None = None

    @field_validator("socket")
    @classmethod
    def _short(cls, path: str | None) -> str | None:
        if path is not None and len(path.encode(errors="surrogateescape")) > _SOCKET_PATH_MAX:
            raise ValueError(f"a socket's path has at most {_SOCKET_PATH_MAX} bytes; shorten it")
        return path


class SafetyConfig(Strict):
    """The limits that the control loop checks; see `runtime.safety.safety`."""

    # From rest to 5 rad/s in 20 ms: no servo of this size is faster.
    acceleration_max_rad_s2: Annotated[
        float, within(0.1, 1000, "from rest to the highest speed of any servo in 50 ms")
    ] = 250.0
    # Twice the time after which a 50 Hz bus without answers is a fault.
    state_age_max_s: Annotated[
        float, within(0.01, 2, "the policy would act on joint positions of long ago")
    ] = 0.2
    # The policy process sends a heartbeat every 20 ms; host stalls of 100 ms are common.
    policy_silent_s: Annotated[
        float, within(0.05, 5, "a slow machine stalls for a few seconds, not for longer")
    ] = 0.25
    policy_lost_s: Annotated[float, within(0.1, 10, "an arm that nobody drives must let go")] = (
        1.0  # longer than any stall
    )
    # Holding for longer only heats the servos.
    hold_max_s: Annotated[
        float, within(0.1, 7200, "two hours of holding, watched by temperature_max_c")
    ] = 10.0
    # The pose before the torque goes off, so that the arm does not drop; none: off at once.
    safe_pose_rad: Annotated[tuple[float, ...], Field(min_length=1)] | None = None
    safe_pose_timeout_s: Annotated[
        float, within(0.1, 60, "nothing crosses its range that slowly")
    ] = 10.0
    # A joint 20 degrees behind its command for a second is blocked or drags something along.
    stall_error_rad: Annotated[
        float, within(0.01, 1.6, "a joint a quarter turn behind does not follow")
    ] = 0.35
    stall_s: Annotated[float, within(0.05, 10, "a blocked servo burns in seconds")] = 1.0
    workspace: str | None = None  # `FILE.py:function`, beside robot.yaml: a `Workspace`
    health: HealthConfig = HealthConfig()
    estop: EstopConfig = EstopConfig()

    @model_validator(mode="after")
    def _ordered(self, info: ValidationInfo) -> SafetyConfig:
        silent_s, lost_s = self.policy_silent_s, self.policy_lost_s
        if silent_s >= lost_s and not is_recorded(info):
            text = f"must be below policy_lost_s (got {silent_s:g} and {lost_s:g})"
            raise faults_of_keys([("policy_silent_s", text)])
        nothing = "estop" in self.model_fields_set and not self.estop.model_fields_set
        if nothing and not is_recorded(info):
            raise faults_of_keys(
                [("estop", "has no stop input; give socket or gpio, or leave it out")]
            )
        return self

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


def load_workspace(name: str | None, sample_rad: npt.NDArray[np.float64]) -> Workspace:
    """Load the function `name`, written `FILE.py:function`; None allows every position.

    It is called once with `sample_rad`, float64 [J] rad, so that a wrong signature shows now.

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
        answer = found(sample_rad.copy())
        if not (answer is None or isinstance(answer, str)):
            raise TypeError(f"{function} returned {answer!r}, expected None or the reason as text")
    except (Exception, SystemExit) as error:  # the file is the user's, and may raise anything
        reason = f"{type(error).__name__}: {error}"
        raise ConfigError(
            f"safety.workspace: {name}: {reason}; name it FILE.py:function, with a file beside "
            "robot.yaml; it takes the joint positions and returns None or a reason"
        ) from error
    return found
