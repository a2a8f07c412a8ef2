"""Engines: one graph, loaded and ready to run, whatever computes it.

Back ends are rows of `BACKENDS`, imported when used. An engine returns fresh output arrays on each
run, so a caller may keep them (System 2's condition outlives many runs of System 1).
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
        """Feed every input of the graph by name; get every output by name, in new arrays.

        Raises EngineError when the back end refuses the feeds or fails.
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
    """An engine that times its work on the GPU by events."""

    def gpu_ms(self) -> float:
        """GPU time of the last run, copies left out."""
        ...


class LayerTime(NamedTuple):
    """What one layer of an engine takes in one run, on average; `kind` is its operator."""

    name: str
    kind: str
    ms: float


@runtime_checkable
class TimesLayers(Protocol):
    """An engine that can tell what its layers take."""

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], runs: int) -> list[LayerTime]:
        """Its layers in the order in which they run, over `runs` runs on `feeds`.

        Measuring each layer slows all of them down: shares are worth more than sums.
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
    """Load `graph` from its file `path` with one of `BACKENDS`.

    Raises ConfigError for an unknown back end, BundleError when the file's inputs and outputs are
    not those of the manifest, EngineError when it can't be loaded.
    """
    if backend not in BACKENDS:
        raise ConfigError(f"no engine back end {backend!r}; choose from {', '.join(BACKENDS)}")
    module, name = BACKENDS[backend]
    engine: Callable[..., Engine] = getattr(import_module(module), name)
    return engine(graph, path, threads=threads)


def check_signature(
    graph: GraphSpec, inputs: Sequence[Signature], outputs: Sequence[Signature]
) -> None:
    """Raise BundleError unless the file's tensors are exactly the manifest's."""
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
    """An all-zero array for each spec: enough to warm an engine up."""
    return {spec.name: np.zeros(spec.shape, dtype=spec.dtype) for spec in specs}
