"""The graphs on the robot are the checkpoint: every call of whole episodes, computed both ways."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.engines.base import Engine, Tensors, load
from v2a.bundle import GraphSpec

pytest.importorskip("torch", reason="compares with PyTorch, which is not installed")

from demo.episodes import CHECKPOINT
from demo.study import Bench
from demo.torch_engine import TorchEngines

TOLERANCE = 1e-4  # radians for chunks; the same bound for every tensor in between


class Both(Engine):
    """An engine that answers with ONNX and keeps the largest difference to PyTorch."""

    def __init__(self, onnx: Engine, torch: Engine) -> None:
        self._onnx, self._torch = onnx, torch
        self.max_abs_error = 0.0
        self.runs = 0

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        ours, theirs = self._onnx.run(feeds), self._torch.run(feeds)
        for name, value in ours.items():
            error = float(np.max(np.abs(value.astype(np.float64) - theirs[name])))
            self.max_abs_error = max(self.max_abs_error, error)
        self.runs += 1
        return ours

    def close(self) -> None:
        self._onnx.close()


def test_every_graph_equals_its_pytorch_stage_in_closed_loop() -> None:
    made: dict[str, Both] = {}
    torch_engines = TorchEngines(CHECKPOINT)

    def engines(graph: GraphSpec, path: Path) -> Engine:
        made[graph.name] = Both(load(graph, path), torch_engines(graph, path))
        return made[graph.name]

    bench = Bench("async", engines=engines)
    try:
        for seed in range(3):
            bench.play(seed, "puck")
    finally:
        bench.close()
    assert made["denoise"].runs > 40
    errors = {name: engine.max_abs_error for name, engine in made.items()}
    assert errors["denoise"] <= TOLERANCE, errors
    assert max(errors.values()) <= 10 * TOLERANCE, errors
