"""Runs the checkpoint's PyTorch modules behind the runtime's engine interface, without ONNX."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from demo.train import POLICY_YAML
from export.own.checkpoints import load_checkpoint
from export.own.config import PolicyConfig
from export.own.rates import GRAPHS
from export.pipeline.split import Stage
from runtime.engines.base import Engine, Tensors
from v2a.bundle import GraphSpec
from v2a.config import load_yaml


class TorchEngines:
    """Factory for `build_workers`: each graph becomes the PyTorch stage that it came from."""

    def __init__(self, checkpoint: Path) -> None:
        torch.set_num_threads(1)
        self.policy = load_checkpoint(checkpoint, load_yaml(POLICY_YAML, PolicyConfig)).policy

    def __call__(self, graph: GraphSpec, path: Path) -> TorchEngine:
        row = next(row for row in GRAPHS if row.name == graph.name)
        return TorchEngine(Stage(self.policy, row), graph)


class TorchEngine(Engine):
    """Runs one PyTorch stage as an `Engine`."""

    def __init__(self, stage: Stage, graph: GraphSpec) -> None:
        self._stage, self._graph = stage, graph

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Run the stage on name -> array, with shape, dtype and unit as in the graph's spec."""
        inputs = [
            torch.from_numpy(np.ascontiguousarray(feeds[spec.name])) for spec in self._graph.inputs
        ]
        with torch.no_grad():
            out = self._stage(*inputs)
        outputs = out if isinstance(out, tuple) else (out,)
        names = [spec.name for spec in self._graph.outputs]
        return {name: tensor.numpy() for name, tensor in zip(names, outputs, strict=True)}

    def close(self) -> None:
        """Nothing to release."""


def zero_token_kv(checkpoint: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Compute the K/V of a condition token that is zero, for each K/V output of the condition.

    Each array is float32 [blocks, 2, 1, heads, 1, head width], without unit.
    """
    policy = TorchEngines(checkpoint).policy
    token = torch.zeros(1, 1, policy.config.core.dim)
    with torch.no_grad():
        return {
            "video_kv": policy.core.visual_kv(token).numpy(),
            "register_kv": policy.observer.register_kv(token).numpy(),
        }
