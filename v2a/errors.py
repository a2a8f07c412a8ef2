"""The errors that a user can see. Each message says what is wrong, what was expected and the fix.

V2AError                    exit code 1
 +-- ConfigError            2  `robot.yaml:11: bus.joints.1.id: ... (got 300)`
 +-- BundleError            3  a graph is missing or was changed after export
 +-- EngineError            4  an inference back end cannot load or run a graph
 +-- CameraError            5  the camera is missing or has stopped
 |    +-- CameraEnded       5  the video file has ended
 +-- BusError               6  a servo does not answer, or answers with an error
 |    +-- PortError         6  the serial port is missing, busy, forbidden or was unplugged
 +-- SafetyFault            7  a safety limit was crossed; the robot is disarmed
 +-- OverBudget             8  `denoise p99 62 ms (limit 50)`: v2a profile --budgets
 +-- DamagedRecording       9  part of a recording is unreadable; the result covers the rest
 +-- OutputLost            10  the result could not be written to stdout

The command line prints `error: <message>` on stderr and exits with the error's exit code.
"""

from __future__ import annotations

from typing import ClassVar


class V2AError(Exception):
    """Base class of every error that v2a raises on purpose."""

    exit_code: ClassVar[int] = 1


class ConfigError(V2AError):
    """A configuration file is wrong. The message has one line per fault, with its line number."""

    exit_code = 2


class BundleError(V2AError):
    """The bundle is incomplete, was changed after export, or does not fit this version."""

    exit_code = 3


class EngineError(V2AError):
    """An inference back end cannot load or run a graph."""

    exit_code = 4


class CameraError(V2AError):
    """A camera is missing, or its stream has ended."""

    exit_code = 5


class CameraEnded(CameraError):  # noqa: N818  an end is not always an error
    """The video file has ended. This ends a dry run; in a real run it is a fault."""


class BusError(V2AError):
    """The motor bus failed: no answer, a wrong answer or an error bit."""

    exit_code = 6


class PortError(BusError):
    """The serial port of the bus cannot be opened or was unplugged."""


class SafetyFault(V2AError):  # noqa: N818 - a safety fault is the field's word
    """A safety limit was crossed; the robot was disarmed."""

    exit_code = 7


class OverBudget(V2AError):  # noqa: N818  a verdict, not a fault of the program
    """A run took longer than its budgets allow."""

    exit_code = 8


class DamagedRecording(V2AError):  # noqa: N818  what is wrong, and with what
    """Part of a recording cannot be read; the command's result covers only the rest."""

    exit_code = 9


class OutputLost(V2AError):  # noqa: N818  what is wrong, and with what
    """The result of the command could not be written to stdout."""

    exit_code = 10
