"""Wraps the Python modules of TensorRT (`tensorrt`) and TensorRT-RTX (`tensorrt_rtx`).

One code path serves TensorRT 10.3 (JetPack 6.2) to 11.x and TensorRT-RTX. `flag` looks up names
that only some versions have.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from v2a.errors import EngineError
from v2a.install import install_hint


class Flavour(NamedTuple):
    """One of NVIDIA's two builds of TensorRT."""

    module: str
    title: str
    install: str


FLAVOURS = {
    "trt": Flavour(
        "tensorrt",
        "TensorRT",
        "on a Jetson it comes with JetPack: make the environment with --system-site-packages",
    ),
    "rtx": Flavour("tensorrt_rtx", "TensorRT-RTX", install_hint("validate")),
}


def open_tensorrt(flavour: str) -> Any:
    """Import the module of a row of `FLAVOURS`. Raises EngineError if that fails."""
    row = FLAVOURS[flavour]
    try:
        return import_module(row.module)
    # OSError: one of the module's libraries is missing, as libnvdla_compiler.so in a container on
    # L4T R39.2.
    except (ImportError, OSError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise EngineError(f"{row.title} can't be imported ({reason}); {row.install}") from fault


def title(trt: Any) -> str:
    """Return the module's name and version for a message, such as `TensorRT-RTX 1.7.1.116`."""
    names = {row.module: row.title for row in FLAVOURS.values()}
    return f"{names[trt.__name__]} {trt.__version__}"


def is_rtx(trt: Any) -> bool:
    """Whether this is TensorRT-RTX, which builds without a GPU and times no kernels."""
    return bool(trt.__name__ == FLAVOURS["rtx"].module)


def flag(enum: Any, name: str) -> Any:
    """Return a member of a TensorRT enum, or None if this version lacks it."""
    return getattr(enum, name, None)


def make_log(trt: Any) -> Any:
    """Make a TensorRT logger that prints nothing and keeps the last errors in `errors`.

    The caller must keep the logger alive as long as any TensorRT object that was made with it.
    """

    class Log(trt.ILogger):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            trt.ILogger.__init__(self)
            self.errors: deque[str] = deque(maxlen=8)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                self.errors.append(message)

    return Log()


class LayerProfile(Protocol):
    """Layer -> total ms of all runs so far, in running order."""

    total_ms: dict[str, float]


def make_layer_profile(trt: Any) -> LayerProfile:
    """Make a profiler for an execution context (TensorRT Python API, IProfiler).

    The caller must keep the profiler alive as long as the context.
    """

    class Profile(trt.IProfiler):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return Profile()


def first_error(log: Any) -> str:
    """Return the first line of the first error in the log; later errors follow from it."""
    return log.errors[0].splitlines()[0] if log.errors else "it gave no reason"
