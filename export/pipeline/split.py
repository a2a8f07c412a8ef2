"""A policy cut into graphs by the rate at which their inputs change."""

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
    """One exported graph: `run(policy, *inputs)`; inputs and outputs are keys of `Split.specs`.

    A graph that runs more than once for a chunk has a row for each run, with other keys; `names`
    then tells what its file calls them.
    """

    name: str
    rate: Rate
    run: Callable[..., Any]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    names: Mapping[str, str] = field(default_factory=dict)

    def specs(self, known: Mapping[str, TensorSpec]) -> dict[str, TensorSpec]:
        """Of its own tensors, by key, under the names that its file uses."""
        return {
            key: known[key].model_copy(update={"name": self.names.get(key, known[key].name)})
            for key in (*self.inputs, *self.outputs)
        }

    def spec(self, known: Mapping[str, TensorSpec], file: str, **more: Any) -> GraphSpec:
        """What a manifest says of it; `more` are further fields."""
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
    """A policy seen as one graph: what the exporter traces."""

    def __init__(self, policy: nn.Module, graph: Graph) -> None:
        super().__init__()
        self.policy = policy
        self.graph = graph

    def forward(self, *inputs: Tensor) -> Any:
        return self.graph.run(self.policy, *inputs)

    @torch.no_grad()
    def outputs(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Run on the named tensors; the graph's outputs by key."""
        out = self(*(tensors[key] for key in self.graph.inputs))
        return dict(zip(self.graph.outputs, out if isinstance(out, tuple) else (out,), strict=True))


def chain(
    policy: nn.Module, inputs: dict[str, Tensor], graphs: Sequence[Graph]
) -> dict[str, Tensor]:
    """Run every graph's PyTorch stage in order; all tensors by key."""
    tensors = dict(inputs)
    for graph in graphs:
        tensors |= Stage(policy, graph).outputs(tensors)
    return tensors


@dataclass(frozen=True, slots=True)
class Split:
    """A policy cut into graphs: what the exporter and the parity check read.

    `inputs` are example tensors for what no graph makes; on tensors by key, `plain` is the model
    that caches nothing: what the last graph gives at the end of the chain.
    """

    policy: nn.Module
    graphs: tuple[Graph, ...]
    specs: Mapping[str, TensorSpec]
    inputs: dict[str, Tensor]
    plain: Callable[[dict[str, Tensor]], Tensor]
    precision: Mapping[str, Precision]  # of each graph
