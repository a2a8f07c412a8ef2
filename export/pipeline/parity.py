"""The parity check: compares exported graphs with PyTorch on seeded inputs.

Each graph is compared with its PyTorch stage, and the chain of all graphs with the plain model.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from export.pipeline.config import Precision
from export.pipeline.split import Graph, Split
from runtime.engines import Engine, load
from v2a.bundle import GraphSpec
from v2a.errors import BundleError

MAX_ABS_ERROR = 1e-4
"""Allows float32 rounding through a graph. The demo policy's measured errors are below 1e-5."""

LIMITS: Mapping[Precision, float] = {"fp32": MAX_ABS_ERROR, "fp16": 1e-2}
"""Largest error that passes, relative to the tensor's largest value if that is above 1. The fp16
limit allows rounding to eleven bits through a whole graph."""

_FIXES: Mapping[Precision, str] = {
    "fp32": "export with the tested versions of torch, onnx and onnxruntime",
    "fp16": "export this component as bf16 or fp32",
}

UNCHECKED: Precision = "bf16"  # ONNX Runtime has no CPU kernels for it


def run_graph(
    split: Split, graph: Graph, engine: Engine, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Run the exported `graph` on `tensors`, key -> tensor in the shape of its spec.

    Returns the graph's outputs by key, float32 in the shapes of their specs. Raises EngineError if
    the engine fails.
    """
    specs = graph.specs(split.specs)
    feeds = {
        specs[key].name: tensors[key].numpy().astype(specs[key].dtype, copy=False)
        for key in graph.inputs
    }
    outputs = engine.run(feeds)
    return {key: _widened(outputs[specs[key].name]) for key in graph.outputs}


def graph_error(split: Split, graph: Graph, engine: Engine, tensors: dict[str, Tensor]) -> float:
    """Return the largest |ONNX - PyTorch| over all outputs of one graph.

    `tensors` are the PyTorch chain's, key -> tensor in the shape of its spec. Raises BundleError
    above the limit of the graph's precision.
    """
    precision = split.precision[graph.name]
    outputs = run_graph(split, graph, engine, tensors)
    return max(
        _checked(f"graph {graph.name}: {key}", value, tensors[key], precision)
        for key, value in outputs.items()
    )


@torch.no_grad()
def chain_error(split: Split, files: Mapping[str, GraphSpec], folder: Path) -> float:
    """Return the largest difference between the chain of exported graphs and the plain model.

    Raises BundleError above the limit of the chain's lowest precision.
    """
    narrowest = max((split.precision[name] for name in files), key=LIMITS.__getitem__)
    tensors = dict(split.inputs)
    for graph in split.graphs:
        spec = files[graph.name]
        with load(spec, folder / spec.file) as engine:
            tensors |= run_graph(split, graph, engine, tensors)
    (last,) = split.graphs[-1].outputs
    return _checked(f"the whole chain: {last}", tensors[last], split.plain(split.inputs), narrowest)


def _widened(array: npt.NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32, copy=False))


def _checked(what: str, found: Tensor, expected: Tensor, precision: Precision) -> float:
    error = float((found - expected).abs().max())
    limit = LIMITS[precision] * max(1.0, float(expected.abs().max()))
    if not error <= limit:
        raise BundleError(
            f"{what} of the exported graph differs from PyTorch by {error:.2g}, limit {limit:.2g}; "
            f"{_FIXES[precision]}"
        )
    return error
