"""The study's wrapper against the policy in PyTorch with a stream's tokens set to zero."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demo.episodes import BUNDLE, CHECKPOINT
from demo.streams import STREAMS, ZERO_TOKENS, Stream, without_streams
from runtime.engines.base import load
from v2a.bundle import GraphSpec, load_bundle

torch = pytest.importorskip("torch", reason="the reference is PyTorch")


@pytest.mark.parametrize("without", [(), ("spatial",), ("motion",), STREAMS])
def test_the_condition_is_that_of_zeroed_tokens(without: tuple[Stream, ...]) -> None:
    from demo.torch_engine import TorchEngines

    policy = TorchEngines(CHECKPOINT).policy
    graph = load_bundle(BUNDLE).graph("condition")
    draws = np.random.default_rng(0)
    feeds = {
        spec.name: draws.standard_normal(spec.shape).astype(np.float32) for spec in graph.inputs
    }
    with torch.no_grad():
        features = [torch.from_numpy(feeds[spec.name]) for spec in graph.inputs]
        tokens = torch.cat(
            [
                stream * (name not in without)
                for name, stream in zip(STREAMS, policy.condition_tokens(*features), strict=True)
            ],
            dim=1,
        )
        wanted = {
            "video_kv": policy.core.visual_kv(tokens),
            "register_kv": policy.observer.register_kv(tokens),
        }
    with without_streams(load, without)(graph, BUNDLE / graph.file) as engine:
        found = engine.run(feeds)
    for name, kv in wanted.items():
        np.testing.assert_allclose(found[name], kv.numpy(), atol=1e-5)


def test_other_graphs_are_left_alone() -> None:
    bundle = load_bundle(BUNDLE)
    graph = bundle.graph("vae_spatial")
    opened: list[str] = []

    def engines(spec: GraphSpec, path: Path) -> Any:
        opened.append(spec.name)
        return "the engine itself"

    engine: Any = without_streams(engines, STREAMS)(graph, BUNDLE / graph.file)
    assert engine == "the engine itself"
    assert opened == ["vae_spatial"]


def test_the_shipped_constants_are_the_checkpoints() -> None:
    from demo.torch_engine import zero_token_kv

    with np.load(ZERO_TOKENS) as shipped:
        for name, kv in zero_token_kv(CHECKPOINT).items():
            np.testing.assert_allclose(shipped[name], kv, atol=1e-6)
