"""Half precision: which tensors are narrow, and what that costs in accuracy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from export.pipeline.config import Component, Precision
from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.parity import LIMITS, graph_error
from export.pipeline.precision import NARROW, PRODUCTS
from export.pipeline.split import Split, chain
from export.release.rates import split_of
from export.release.tensors import TextLengths
from runtime.engines import load
from tests.export.release.conftest import random_policy, tiny_config
from v2a.bundle import GraphSpec
from v2a.errors import BundleError

TEXTS = TextLengths(lang=5, video=3)
ISLANDS = {"Softmax", "Sqrt", "ReduceMean", "ReduceSum", "LayerNormalization", "Erf", "Exp", "Add"}
CASES: tuple[tuple[str, Component, Precision], ...] = (
    ("denoise", "core", "fp16"),
    ("vdm_motion", "dit", "fp16"),
    ("vae_motion", "vae", "fp16"),
    ("vdm_motion", "dit", "bf16"),
)


@dataclass
class Case:
    """One graph of a tiny policy in a precision, written to a file."""

    name: str
    precision: Precision
    split: Split
    tensors: dict[str, Tensor]
    spec: GraphSpec
    path: Path

    @property
    def model(self) -> onnx.ModelProto:
        return onnx.shape_inference.infer_shapes(onnx.load(self.path), strict_mode=True)


@cache
def narrowed(name: str, part: Component, precision: Precision, folder: Path) -> Case:
    split = split_of(random_policy(tiny_config()), TEXTS, {part: precision})
    tensors = chain(split.policy, split.inputs, split.graphs)
    graph = next(graph for graph in split.graphs if graph.name == name)
    specs = graph.specs(split.specs)
    spec = GraphSpec(
        name=name,
        rate=graph.rate,
        file=f"{name}_{precision}.onnx",
        inputs=[specs[key] for key in graph.inputs],
        outputs=[specs[key] for key in graph.outputs],
        precision=precision,
    )
    path = folder / spec.file
    save(onnx_from_torch(split.policy, graph, split.specs, tensors, precision), path)
    return Case(name, precision, split, tensors, spec, path)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("narrowed")


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[2]}")
def case(request: pytest.FixtureRequest, folder: Path) -> Case:
    return narrowed(*request.param, folder)


def types_of(model: onnx.ModelProto) -> dict[str, int]:
    graph = model.graph
    values = (*graph.input, *graph.output, *graph.value_info)
    known = {value.name: value.type.tensor_type.elem_type for value in values}
    return known | {weight.name: weight.data_type for weight in graph.initializer}


def float_inputs(model: onnx.ModelProto, operators: frozenset[str] | set[str]) -> Iterator[int]:
    types = types_of(model)
    for node in model.graph.node:
        if node.op_type in operators:
            yield from (types[name] for name in node.input if types[name] != TensorProto.INT64)


def test_products_are_narrow_and_islands_are_not(case: Case) -> None:
    narrow = int(NARROW[case.precision])
    assert set(float_inputs(case.model, PRODUCTS[case.precision])) == {narrow}
    assert set(float_inputs(case.model, ISLANDS)) == {TensorProto.FLOAT}


def test_each_weight_of_a_product_is_stored_once(case: Case) -> None:
    weights = [w for w in case.model.graph.initializer if len(w.dims) > 1]
    assert len({weight.name.split("_transposed")[0] for weight in weights}) == len(weights)


def test_the_manifest_tells_the_types_at_the_border(case: Case) -> None:
    types = types_of(case.model)
    for tensor in (*case.spec.inputs, *case.spec.outputs):
        assert types[tensor.name] == onnx.helper.np_dtype_to_tensor_dtype(np.dtype(tensor.dtype))
    wide = case.precision == "bf16"  # numpy has no bfloat16: its keys and values are stored as fp32
    for tensor in case.spec.inputs:
        if tensor.name.endswith("_kv"):
            assert tensor.dtype == ("float32" if wide else "float16")


@pytest.mark.parametrize("case", [c for c in CASES if c[2] == "fp16"], indirect=True)
def test_fp16_is_within_its_tolerance_and_not_fp32(case: Case) -> None:
    graph = next(graph for graph in case.split.graphs if graph.name == case.name)
    with load(case.spec, case.path) as engine:
        error = graph_error(case.split, graph, engine, case.tensors)  # raises past LIMITS["fp16"]
    assert error > 1e-6  # else nothing was narrowed


def test_bf16_by_the_reference_evaluator(folder: Path) -> None:
    """ONNX Runtime's CPU has no bf16 kernels; onnx's own evaluator has."""
    case = narrowed("vdm_motion", "dit", "bf16", folder)
    feeds = {t.name: case.tensors[t.name].numpy() for t in case.spec.inputs}
    (made,) = ReferenceEvaluator(str(case.path)).run(None, feeds)
    expected = case.tensors["features_motion"].numpy()
    error = np.abs(made - expected).max() / np.abs(expected).max()
    assert 1e-4 < error < 8 * LIMITS["fp16"]  # three bits fewer


def test_a_weight_beyond_fp16_is_refused(tmp_path: Path) -> None:
    policy = random_policy(tiny_config())
    policy.trained.get_parameter("img_adaptor.0.weight")[0, 0] = 1e5
    split = split_of(policy, TEXTS, {"core": "fp16"})
    graph = next(graph for graph in split.graphs if graph.name == "frame_encode")
    model = onnx_from_torch(policy, graph, split.specs, split.inputs, "fp16")
    with pytest.raises(BundleError, match=r"img_adaptor\.0\.weight.* 1e\+05 does not fit; export"):
        save(model, tmp_path / "frame_encode.onnx")
