"""Compares every tensor of a golden folder with PyTorch and with ONNX Runtime."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.split import Graph, Stage
from export.release.checkpoints import load_released
from export.release.config import ReleaseConfig, unused_options
from export.release.options import load_policy_file
from export.release.policy import ReleasedPolicy
from export.release.stages import (
    FILTER_INPUT,
    STAGES,
    filter_stages,
    input_shapes,
    language_masks,
    runs_of,
)
from export.release.weight_files import read_weights
from runtime.engines import Engine, load
from v2a.bundle import TensorSpec
from v2a.errors import ConfigError

MAX_ABS_ERROR = 2e-4
MAX_RELATIVE_ERROR = 1e-3  # relative to the golden tensor's largest value
ENGINES = ("torch", "onnx")

Tensors = dict[str, Tensor]


@dataclass(frozen=True, slots=True)
class Result:
    """One golden tensor compared with one engine. The error is None if nothing is comparable."""

    tensor: str
    engine: str
    max_abs_error: float | None
    limit: float
    fault: str | None = None

    @property
    def passed(self) -> bool:
        return self.max_abs_error is not None and self.max_abs_error <= self.limit


@dataclass(frozen=True, slots=True)
class Golden:
    """A golden folder after loading."""

    policy: ReleasedPolicy
    tensors: Tensors
    unused_options: list[str]

    @property
    def comparisons(self) -> int:
        """Number of results of `compare_golden`."""
        return len(ENGINES) * len(self.expected)

    @property
    def expected(self) -> Tensors:
        """The tensors to compare with, in the shapes that the folder records."""
        return {key: value for key, value in self.tensors.items() if not key.startswith("in.")}


def load_golden(folder: Path) -> Golden:
    """Load a golden folder: policy, weights and tensors.

    Raises ConfigError, with one line per fault, if a part is missing or parts don't match.
    """
    config = load_policy_file(folder / "config.json", ReleaseConfig)
    policy = load_released(
        config,
        folder / "policy.safetensors",
        folder / "wan_dit.safetensors",
        folder / "vae_encoder.safetensors",
    )
    file = folder / "tensors.safetensors"
    tensors = {key: value.float() for key, value in read_weights(file).items()}
    faults = list(_tensor_faults(config, tensors))
    if faults:
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in faults))
    return Golden(policy, tensors, list(unused_options(config)))


def _tensor_faults(config: ReleaseConfig, tensors: Tensors) -> Iterator[str]:
    fix = "create the folder again"
    if all(key.startswith("in.") for key in tensors):
        yield f"holds no tensor to compare with; {fix}"
    for key, value in tensors.items():
        if not value.isfinite().all():
            yield f"{key} holds NaN or infinity; {fix}"
    for key, shape in input_shapes(config, tensors).items():
        if key in tensors and list(tensors[key].shape) != shape:
            yield f"{key} is {list(tensors[key].shape)}, but config.json gives {shape}; {fix}"


def compare_golden(golden: Golden) -> Iterator[Result]:
    """Yield one result per engine for each tensor of the folder that is no input."""
    tensors = language_masks(golden.tensors) | golden.tensors
    expected = golden.expected
    graphs = (*STAGES, *filter_stages(golden.policy.config, tensors))
    made = set()
    for graph in graphs:
        # A graph without its inputs is skipped; its tensors are reported below.
        if tensors.keys() >= set(graph.inputs):
            for result in _check_graph(golden.policy, graph, tensors):
                made.add(result.tensor)
                yield result
    lacking = _lacking(graphs, tensors)
    for key in sorted(expected.keys() - made):
        for engine in ENGINES:
            yield Result(key, engine, None, limit_of(expected[key]), lacking.get(key, "unknown"))


def _lacking(graphs: Iterable[Graph], tensors: Tensors) -> dict[str, str]:
    """Return tensor -> the missing tensors that it is computed from."""
    filters = {f"filter.{name}": f"needs {source}" for name, source in FILTER_INPUT.items()}
    return filters | {
        made: "needs " + ", ".join(sorted(set(run.feeds.values()) - tensors.keys()))
        for graph in graphs
        for run in runs_of(graph)
        for made in run.results.values()
    }


def limit_of(expected: Tensor) -> float:
    """Return the largest absolute error that passes, for an expected tensor of any shape."""
    return max(MAX_ABS_ERROR, MAX_RELATIVE_ERROR * float(expected.abs().max()))


def compare(tensor: str, engine: str, made: Tensor, expected: Tensor) -> Result:
    """Compare the largest absolute error with its limit. Another shape or a NaN is a fault."""
    limit = limit_of(expected)
    if made.shape != expected.shape:
        fault = f"shape {list(made.shape)}, expected {list(expected.shape)}"
        return Result(tensor, engine, None, limit, fault)
    error = float((made - expected).abs().max())
    if not math.isfinite(error):
        return Result(tensor, engine, None, limit, "not finite")
    return Result(tensor, engine, error, limit)


def _check_graph(policy: ReleasedPolicy, graph: Graph, tensors: Tensors) -> Iterator[Result]:
    runs = [run for run in runs_of(graph) if tensors.keys() & set(run.results.values())]
    if not runs:
        return
    stage = Stage(policy, graph)
    with _onnx_engine(stage, tensors) as engine:
        for run in runs:
            inputs = {key: tensors[source] for key, source in run.feeds.items()}
            for name, outputs in _by_engine(stage, engine, inputs).items():
                for key, tensor in run.results.items():
                    if tensor in tensors:
                        yield compare(tensor, name, outputs[key], tensors[tensor])


def _by_engine(stage: Stage, engine: Engine, inputs: Tensors) -> dict[str, Tensors]:
    arrays = engine.run({key: value.numpy() for key, value in inputs.items()})
    onnx = {key: torch.from_numpy(array) for key, array in arrays.items()}
    return dict(zip(ENGINES, (stage.outputs(inputs), onnx), strict=True))


@contextmanager
def _onnx_engine(stage: Stage, tensors: Tensors) -> Iterator[Engine]:
    """Export the stage to a temporary folder and load it in ONNX Runtime."""
    graph, known = stage.graph, tensors | stage.outputs(tensors)
    specs = {
        key: TensorSpec(name=key, dtype="float32", shape=list(known[key].shape), meaning="golden")
        for key in (*graph.inputs, *graph.outputs)
    }
    spec = graph.spec(specs, f"{graph.name}.onnx")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / spec.file
        save(onnx_from_torch(stage.policy, graph, specs, tensors), path)
        with load(spec, path) as engine:
            yield engine
