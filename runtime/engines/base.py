"""The interface of an engine: one graph of a bundle, loaded and ready to run.

Back ends are rows of `BACKENDS` and are imported when used. An engine returns new output arrays on
each run, so a caller may keep them: System 2's condition outlives many runs of System 1.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

from v2a.bundle import GraphSpec, TensorSpec
from v2a.errors import BundleError, ConfigError, EngineError

Tensors = dict[str, npt.NDArray[Any]]
E = TypeVar("E", bound="Engine")
Signature = tuple[str, str, tuple[int, ...]]  # name, numpy dtype name, shape


class Engine(Protocol):
    """A loaded graph. `with` closes it."""

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Run the graph once on `feeds` and return its outputs in new arrays.

        Both map a tensor's name to an array with the shape and dtype of its `TensorSpec`. All
        inputs are required. Raises EngineError if the back end refuses the feeds or fails.
        """
        ...

    def close(self) -> None: ...

    def __enter__(self: E) -> E:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


@runtime_checkable
class TimesGpu(Protocol):
    """An engine that measures its GPU time by events."""

    def gpu_ms(self) -> float:
        """Return the GPU time of the last run in ms, without copies."""
        ...


class LayerTime(NamedTuple):
    """The mean time of one layer per run. `kind` is its operator."""

    name: str
    kind: str
    ms: float


@runtime_checkable
class TimesLayers(Protocol):
    """An engine that can time its layers."""

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], runs: int) -> list[LayerTime]:
        """Time the layers, in running order, over `runs` runs on `feeds` (shapes as for `run`).

        Timing slows every layer down, so the layers' shares are more reliable than their sum.
        """
        ...


EngineFactory = Callable[[GraphSpec, Path], Engine]

BACKENDS = {
    "ort": ("runtime.engines.ort", "OrtEngine"),
    "fake": ("runtime.engines.fake", "FakeEngine"),
    "trt": ("runtime.engines.trt", "load_trt"),
    "rtx": ("runtime.engines.trt", "load_rtx"),
}


def load(graph: GraphSpec, path: Path, backend: str = "ort", threads: int = 1) -> Engine:
    """Load `graph` from its ONNX file `path` with one of `BACKENDS`.

    Raises ConfigError for an unknown back end, BundleError if the file's inputs or outputs differ
    from the manifest's, EngineError if the file can't be loaded.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"no engine back end {backend!r}; choose from {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend]
    engine: Callable[..., Engine] = getattr(import_module(module), name)
    return engine(graph, path, threads=threads)


def check_signature(
    graph: GraphSpec, inputs: Sequence[Signature], outputs: Sequence[Signature]
) -> None:
    """Raise BundleError unless the file has exactly the manifest's names, dtypes and shapes."""
    for side, specs, found in (
        ("input", graph.inputs, inputs),
        ("output", graph.outputs, outputs),
    ):
        _check_side(graph, side, specs, {name: (dtype, shape) for name, dtype, shape in found})


def _check_side(
    graph: GraphSpec,
    side: str,
    specs: Sequence[TensorSpec],
    found: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    fix = "export the bundle again"
    if {spec.name for spec in specs} != set(found):
        raise BundleError(
            f"graph {graph.name}: manifest names the {side}s {sorted(s.name for s in specs)}, "
            f"{graph.file} has {sorted(found)}; {fix}"
        )
    for spec in specs:
        dtype, shape = found[spec.name]
        if (dtype, shape) != (spec.dtype, tuple(spec.shape)):
            raise BundleError(
                f"graph {graph.name}: {side} {spec.name} is {spec.dtype}{list(spec.shape)} in the "
                f"manifest but {dtype}{list(shape)} in {graph.file}; {fix}"
            )


def check_tensor(graph: str, spec: TensorSpec, array: npt.NDArray[Any] | None) -> None:
    """Raise EngineError unless `array` has the dtype and the shape of `spec`."""
    found = "nothing" if array is None else f"{array.dtype.name}{list(array.shape)}"
    wanted = f"{np.dtype(spec.dtype).name}{list(spec.shape)}"
    if found != wanted:
        raise EngineError(f"graph {graph}: {spec.name} is {found}, wanted {wanted}")


def zeros(specs: Sequence[TensorSpec]) -> Tensors:
    """Return an all-zero array in the shape and dtype of each spec, to warm an engine up."""
    return {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in specs}
