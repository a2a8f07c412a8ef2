"""Describes how a policy is split into graphs by the rate at which their inputs change."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from export.pipeline.config import Precision
from v2a.bundle import GraphSpec, TensorSpec
from v2a.names import Rate


@dataclass(frozen=True, slots=True)
class Graph:
    """One exported graph, computed by `run(policy, *inputs)`.

    `inputs` and `outputs` are keys of `Split.specs`. A graph that runs several times per chunk has
    one row per run, with different keys. `names` then maps these keys to the names in its file.
    """

    name: str
    rate: Rate
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def specs(self, known: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """Return the specs of the graph's own tensors by key, with the names in its file."""
        return {
            key: known[key].model_copy(update={"name": self.names.get(key, known[key].name)})
            for key in (*self.inputs, *self.outputs)
        }

    def spec(self, known: Mapping[str, TensorSpec], file: str, **more: Any) -> GraphSpec:
        """Return the graph's entry in the manifest. `more` adds fields."""
        specs = self.specs(known)
        return GraphSpec(
            name=self.name,
            rate=self.rate,
            file=file,
            inputs=[specs[key] for key in self.inputs],
            outputs=[specs[key] for key in self.outputs],
            **more,
        )


class Stage(nn.Module):
    """The module that the exporter traces: one graph of a policy."""

    def __init__(self, policy: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.policy = policy
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Any:
        """Run the graph. Inputs have the shapes of their specs, in the graph's order."""
        return self.graph.run(self.policy, *inputs)

    @torch.no_grad()
    def outputs(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run on `tensors` and return the outputs, key -> tensor in the shape of its spec."""
        out = self(*(tensors[key] for key in self.graph.inputs))
        return dict(zip(self.graph.outputs, out if isinstance(out, tuple) else (out,), strict=True))


def chain(
    policy: nn.Module, inputs: dict[str, Tensor], graphs: Sequence[Graph]
) -> dict[str, Tensor]:
    """Run every graph's PyTorch stage in order. Returns the inputs and all outputs by key.

    Tensors have the shapes of their specs.
    """
    tensors = dict(inputs)
    for graph in graphs:
        tensors |= Stage(policy, graph).outputs(tensors)
    return tensors


@dataclass(frozen=True, slots=True)
class Split:
    """A policy split into graphs, for the exporter and the parity check.

    `inputs` are example tensors for all inputs that no graph computes. `plain` is the whole model
    without caches: it maps those tensors to the output of the last graph.
    """

    policy: nn.Module
    graphs: tuple[Graph, ...]
    specs: Mapping[str, TensorSpec]
    inputs: dict[str, Tensor]
    plain: Callable[[dict[str, Tensor]], Tensor]
    precision: Mapping[str, Precision]  # of each graph
