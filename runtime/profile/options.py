"""The options that `v2a profile` and `v2a sweep` share."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from pathlib import Path
from typing import Any, Final

import click

from runtime.engines import BACKENDS
from v2a.option_types import FiniteRange

THREADS_MAX: Final = 1024  # no board of this kind has more cores
PATH: Final = click.Path(path_type=Path)

_ROBOT = click.option(
    "--robot", "robot_yaml", type=PATH, help="robot.yaml.  [default: a virtual robot]"
)
_CAMERA = click.option(
    "--camera",
    metavar="SOURCE",
    help="file:clip.mp4, /dev/video0, ...  [default: the camera of robot.yaml, else noise]",
)
_SECONDS = click.option(
    "--seconds",
    type=FiniteRange(min=0.5),
    default=20.0,
    show_default=True,
    help="Length of the measured run. Three runs of a third of it follow.",
)
_ENGINE = click.option(
    "--engine",
    type=click.Choice(list(BACKENDS)),
    default="ort",
    show_default=True,
    help="Engine back end; trt and rtx need `v2a build` first.",
)
_THREADS = click.option(
    "--threads",
    type=click.IntRange(1, THREADS_MAX),
    default=1,
    show_default=True,
    help="Threads of each ONNX Runtime engine.",
)

MEASURING: Final = {  # parameter -> option
    "robot_yaml": "--robot",
    "camera": "--camera",
    "seconds": "--seconds",
    "engine": "--engine",
    "threads": "--threads",
}

Command = Callable[..., Any]


def measuring_options(command: Command) -> Command:
    """Add --robot, --camera, --seconds, --engine and --threads to a command."""
    options = (_ROBOT, _CAMERA, _SECONDS, _ENGINE, _THREADS)
    return reduce(lambda made, option: option(made), reversed(options), command)
