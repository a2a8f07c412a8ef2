"""TensorRT's Python module, whichever of them: `tensorrt` on a robot, `tensorrt_rtx` beside it.

One code path serves TensorRT 10.3 (JetPack 6.2) to 11.x and TensorRT-RTX. A name that only some of
them have is asked for with `flag`.
"""

from __future__ import annotations

from collections import deque
from importlib import import_module
from typing import Any, NamedTuple, Protocol

from v2a.errors import EngineError


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
    "rtx": Flavour("tensorrt_rtx", "TensorRT-RTX", "run: pip install '.[validate]'"),
}


def open_tensorrt(flavour: str) -> Any:
    """The Python module of a row of `FLAVOURS`; EngineError with the fix where there is none."""
    row = FLAVOURS[flavour]
    try:
        return import_module(row.module)
    # OSError: the module is there and one of its libraries is not (seen on L4T R39.2, where
    # libnvdla_compiler.so is missing from a container).
    except (ImportError, OSError) as fault:
        reason = (str(fault).splitlines() or [type(fault).__name__])[0]
        raise EngineError(f"{row.title} can't be imported ({reason}); {row.install}") from fault


def title(trt: Any) -> str:
    """What to call the module in a message: `TensorRT-RTX 1.7.1.116`."""
    names = {row.module: row.title for row in FLAVOURS.values()}
    return f"{names[trt.__name__]} {trt.__version__}"


def is_rtx(trt: Any) -> bool:
    """TensorRT-RTX compiles for a GPU that is not there, and times no kernels as it builds."""
    return bool(trt.__name__ == FLAVOURS["rtx"].module)


def flag(enum: Any, name: str) -> Any:
    """The member of a TensorRT enum, or None: members come and go between versions."""
    return getattr(enum, name, None)


def make_log(trt: Any) -> Any:
    """A logger for TensorRT that keeps its last errors in `errors` and prints nothing.

    Whoever makes a TensorRT object with it has to keep it alive for as long as the object.
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
    """Layer -> ms in all runs so far, in the order in which layers run."""

    total_ms: dict[str, float]


def make_layer_profile(trt: Any) -> LayerProfile:
    """A profiler for an execution context (TensorRT Python API, IProfiler: its own `__init__` has
    to be called). Whoever sets it has to keep it alive for as long as the context."""

    class Profile(trt.IProfiler):  # type: ignore[misc]  # the base is known at run time only
        def __init__(self) -> None:
            trt.IProfiler.__init__(self)
            self.total_ms: dict[str, float] = {}

        def report_layer_time(self, layer_name: str, ms: float) -> None:
            self.total_ms[layer_name] = self.total_ms.get(layer_name, 0.0) + ms

    return Profile()


def first_error(log: Any) -> str:
    """The first line of the first error that TensorRT logged: the later ones follow from it."""
    return log.errors[0].splitlines()[0] if log.errors else "it gave no reason"
