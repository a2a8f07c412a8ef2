"""Parity: each exported graph against its PyTorch stage, and the whole chain against the plain
model, on seeded inputs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from export.models.policy import Video2ActPolicy
from export.rates import GRAPHS, Graph, tensor_specs
from runtime.engines import Engine, load
from v2a.bundle import GraphSpec
from v2a.errors import BundleError

MAX_ABS_ERROR = 1e-4
"""Float32 rounding through a whole graph; measured errors of the demo policy are below 1e-5."""


def run_graph(
    policy: Video2ActPolicy, graph: Graph, engine: Engine, tensors: dict[str, Tensor]
) -> dict[str, Tensor]:
    """Run the exported `graph` on tensors by key; its outputs by key."""
    specs = tensor_specs(policy.config)
    outputs = engine.run({specs[key].name: tensors[key].numpy() for key in graph.inputs})
    return {key: torch.from_numpy(outputs[specs[key].name]) for key in graph.outputs}


def graph_error(
    policy: Video2ActPolicy, graph: Graph, engine: Engine, tensors: dict[str, Tensor]
) -> float:
    """Largest |ONNX - PyTorch| over the graph's outputs, fed with the PyTorch chain's tensors.

    Raises BundleError past `MAX_ABS_ERROR`.
    """
    outputs = run_graph(policy, graph, engine, tensors)
    errors = {key: _max_abs(value - tensors[key]) for key, value in outputs.items()}
    worst = max(errors, key=lambda key: _rank(errors[key]))
    return _within_limit(f"graph {graph.name}: {worst}", errors[worst])


@torch.no_grad()
def chain_error(
    policy: Video2ActPolicy, specs: list[GraphSpec], folder: Path, inputs: dict[str, Tensor]
) -> float:
    """Largest |chunk of the exported graphs run in a chain - chunk of the plain model|, in rad.

    Raises BundleError past `MAX_ABS_ERROR`.
    """
    plain = policy(
        inputs["clip"], inputs["image"], inputs["lang_tokens"], inputs["position_rad"],
        inputs["command_rad"], inputs["condition_age_s"], inputs["stream_gate"][None],
        inputs["noise"],
    )  # fmt: skip
    tensors = dict(inputs)
    for graph, spec in zip(GRAPHS, specs, strict=True):
        with load(spec, folder / spec.file) as engine:
            tensors |= run_graph(policy, graph, engine, tensors)
    return _within_limit("the whole chain: chunk_rad", _max_abs(tensors["chunk_rad"] - plain))


def _max_abs(difference: Tensor) -> float:
    return float(difference.abs().max())


def _rank(error: float) -> float:
    return np.inf if np.isnan(error) else error


def _within_limit(what: str, error: float) -> float:
    if not error <= MAX_ABS_ERROR:
        raise BundleError(
            f"{what} of the exported graph differs from PyTorch by {error:.2g}, limit "
            f"{MAX_ABS_ERROR:g}; export with the tested versions of torch, onnx and onnxruntime"
        )
    return error
