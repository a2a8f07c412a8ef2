"""Values beyond float16 are found where the parity with ONNX Runtime's CPU does not see them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx.reference import ReferenceEvaluator

from export.pipeline.config import Component
from export.pipeline.fp16_range import largest_narrow
from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.parity import graph_error
from export.pipeline.split import Graph, Split, chain
from export.release.rates import split_of
from export.release.tensors import TextLengths
from runtime.engines import load
from tests.export.release.conftest import random_policy, tiny_config
from v2a.errors import BundleError

TEXTS = TextLengths(lang=5, video=3)


def enlarged(part: Component, factors: dict[str, float]) -> Split:
    """A tiny policy with `part` in fp16 and some weights times a factor."""
    policy = random_policy(tiny_config())
    for name, factor in factors.items():
        policy.get_parameter(name).data *= factor
    return split_of(policy, TEXTS, {part: "fp16"})


def graph_of(split: Split, name: str) -> Graph:
    return next(graph for graph in split.graphs if graph.name == name)


CONV = "vae.encoder.downsamples.1.downsamples.0.residual.2"  # a norm follows and hides its scale
FFN = "dit.blocks.0.ffn"
SCORES = "dit.blocks.0.self_attn.norm_"


@pytest.mark.parametrize(
    ("part", "graph", "factors", "fault"),
    [
        ("vae", "vae_motion", {f"{CONV}.weight": 3e5}, 
         rf"policy\.{CONV} reaches .* precision.vae to fp32"),
        ("dit", "vdm_motion", {f"{FFN}.0.weight": 3e5, f"{FFN}.2.weight": 1e-5},
         r"policy\.dit\.blocks\.0\.ffn\.0 reaches .* set precision\.dit to fp32 \(or bf16\)"),
        ("dit", "vdm_motion", {f"{SCORES}q.weight": 400.0, f"{SCORES}k.weight": 400.0},
         r"policy\.dit\.blocks\.0 reaches .*, but fp16 ends at 65504"),
        ("core", "instruction", {"trained.lang_adaptor.0.weight": 3e5},
         r"policy\.trained\.lang_adaptor\.0 reaches .* set precision\.core"),
    ],
    ids=["convolution", "hidden layer", "scores of attention", "adaptor"],
)  # fmt: skip
def test_a_product_beyond_fp16_is_refused_by_name(
    part: Component, graph: str, factors: dict[str, float], fault: str
) -> None:
    split = enlarged(part, factors)
    tensors = chain(split.policy, split.inputs, split.graphs)
    with pytest.raises(BundleError, match=f"graph {graph}: {fault}") as refusal:
        largest_narrow(split, graph_of(split, graph), tensors)
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(("factor", "fits"), [(10.0, True), (8e4, False)])
def test_it_agrees_with_an_evaluator_that_rounds_to_fp16(
    tmp_path: Path, factor: float, fits: bool
) -> None:
    """onnx's own evaluator computes in float16; ONNX Runtime's CPU in float32."""
    split = enlarged("dit", {f"{FFN}.0.weight": factor, f"{FFN}.2.weight": 0.1 / factor})
    tensors = chain(split.policy, split.inputs, split.graphs)
    graph, path = graph_of(split, "vdm_motion"), tmp_path / "vdm_motion.onnx"
    save(onnx_from_torch(split.policy, graph, split.specs, tensors, "fp16"), path)
    spec = graph.spec(split.specs, path.name, precision="fp16")
    with load(spec, path) as engine:
        graph_error(split, graph, engine, tensors)  # passes in both cases
    feeds = {
        tensor.name: tensors[tensor.name].numpy().astype(tensor.dtype) for tensor in spec.inputs
    }
    with np.errstate(all="ignore"):
        (made,) = ReferenceEvaluator(str(path)).run(None, feeds)
    assert np.isfinite(made).all() == fits
    if fits:
        assert 1.0 < largest_narrow(split, graph, tensors).value < 65504
    else:
        with pytest.raises(BundleError, match="fp16 ends at 65504"):
            largest_narrow(split, graph, tensors)
