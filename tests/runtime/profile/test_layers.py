"""Layer times folded by module: the names that the engines give, and ONNX Runtime's own profile."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from runtime.engines.base import LayerTime
from runtime.profile.layers import fold_by_module, module_of
from runtime.profile_model import LayerShare


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("policy.core.blocks.3.cross_attn.to_kv/MatMul_7", "core.blocks.*.cross_attn.to_kv"),
        ("policy.core.blocks.3.ffn.0/MatMul_9/MatMulAddFusion", "core.blocks.*.ffn.*"),
        ("policy.core.blocks.12/view_3", "core.blocks.*"),
        ("__myl_Fc_0 [policy.vae.conv1/conv2d + policy.vae.act/silu]", "vae.conv1"),
        ("/transpose_4", None),
        ("gemm_input_reshape_token_2", None),
        ("node_MatMul_92/MatMulAddFusion", None),
    ],
)
def test_a_module_is_read_from_the_name_of_a_layer(name: str, module: str | None) -> None:
    assert module_of(name) == module


def test_blocks_count_as_one_and_strangers_for_the_module_before() -> None:
    found = fold_by_module(
        [
            LayerTime("reorder_token_1", "Reorder", 0.5),
            LayerTime("policy.core.blocks.0.kv/MatMul", "MatMul", 2.0),
            LayerTime("reshape_token_2", "Reshape", 0.5),
            LayerTime("policy.core.blocks.1.kv/MatMul_1", "MatMul", 3.0),
            LayerTime("policy.core.out/MatMul_2", "MatMul", 4.0),
        ]
    )
    assert found == (
        LayerShare(module="core.blocks.*.kv", share=0.6, ms=6.0),
        LayerShare(module="core.out", share=0.4, ms=4.0),
    )


def test_without_any_module_kinds_are_told_apart() -> None:
    found = fold_by_module([LayerTime("a", "MatMul", 3.0), LayerTime("b", "Add", 1.0)])
    assert [row.module for row in found] == ["(MatMul)", "(Add)"]


def test_onnx_runtime_tells_the_time_of_each_node(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    from onnx import TensorProto, checker, helper, numpy_helper, save

    from runtime.engines.ort import OrtEngine
    from v2a.bundle import GraphSpec

    weight = numpy_helper.from_array(np.ones((8, 8), np.float32), "w")
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 8]) for n in ("x", "y")]
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="policy.core.blocks.0.kv/MatMul"),
        helper.make_node("Softmax", ["h"], ["s"], name="policy.core.blocks.0.attn/Softmax"),
        helper.make_node("MatMul", ["s", "w"], ["y"], name="policy.core.blocks.1.kv/MatMul_1"),
    ]
    graph = helper.make_graph(nodes, "layers", value[:1], value[1:], [weight])
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    checker.check_model(model)
    save(model, tmp_path / "layers.onnx")
    tensor = {"dtype": "float32", "shape": [1, 8], "meaning": "test"}
    spec = GraphSpec.model_validate(
        {
            "name": "denoise",
            "rate": "denoise",
            "file": "layers.onnx",
            "inputs": [{"name": "x", **tensor}],
            "outputs": [{"name": "y", **tensor}],
        }
    )
    with OrtEngine(spec, tmp_path / "layers.onnx") as engine:
        layers = engine.layer_times({"x": np.ones((1, 8), np.float32)}, runs=3)
    found = fold_by_module(layers)
    assert {row.module for row in found} == {"core.blocks.*.kv", "core.blocks.*.attn"}
    assert sum(row.share for row in found) == pytest.approx(1, abs=1e-3)
