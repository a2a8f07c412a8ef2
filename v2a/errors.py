"""The errors that a user can meet. Each message says what is wrong, what was expected, what to do.

V2AError                    exit code 1
 +-- ConfigError            2  `robot.yaml:11: bus.joints.1.id: ... (got 300)`
 +-- BundleError            3  a graph is missing or was changed after export
 +-- EngineError            4  a backend cannot load or run a graph
 +-- CameraError            5  the camera is not there, or it stopped
 |    +-- CameraEnded       5  the video file is over
 +-- BusError               6  a servo does not answer, or answers with an error
 |    +-- PortError         6  the serial port is missing, busy, forbidden, or vanished
 +-- SafetyFault            7  a limit was crossed; the robot is disarmed
 +-- OverBudget             8  `denoise p99 62 ms (limit 50)`: v2a profile --budgets

The command line prints `error: <message>` on stderr and exits with the error's exit code.
"""

from __future__ import annotations

from typing import ClassVar


class V2AError(Exception):
    """The root: catch this to catch everything that the project raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(V2AError):
    """A configuration file is wrong: one line per fault, with file and line number."""

    exit_code = 2


class BundleError(V2AError):
    """The bundle is incomplete, was changed after export, or does not fit this version."""

    exit_code = 3


class EngineError(V2AError):
    """An inference backend cannot load or run a graph."""

    exit_code = 4


class CameraError(V2AError):
    """A camera is not there, or its stream ended."""

    exit_code = 5


class CameraEnded(CameraError):  # noqa: N818  an end is not always an error
    """The video file is over: the end of a dry run, a fault of a real one."""


class BusError(V2AError):
    """The motor bus does not behave: no answer, a wrong answer, an error bit."""

    exit_code = 6


class PortError(BusError):
    """The serial port under the bus cannot be opened or vanished."""


class SafetyFault(V2AError):  # noqa: N818 - a safety fault is the field's word
    """A safety limit was crossed; the robot was disarmed."""

    exit_code = 7


class OverBudget(V2AError):  # noqa: N818  a verdict, not a fault of the program
    """A run took longer than its budgets allow."""

    exit_code = 8
