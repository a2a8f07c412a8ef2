"""`v2a export` end to end: the bundle loads, equals PyTorch, and holds nothing it should not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from export.own.rates import GRAPHS, example_inputs, split_of, tensor_specs
from export.pipeline.onnx_from_torch import onnx_from_torch
from export.pipeline.parity import MAX_ABS_ERROR, graph_error
from export.pipeline.split import Graph, chain
from runtime.engines import load
from tests.export.conftest import INSTRUCTION, POLICY_FILE, random_policy
from v2a.bundle import Bundle, load_bundle
from v2a.cli import cli
from v2a.errors import BundleError

Exported = tuple[Path, dict[str, Any]]


@pytest.fixture(scope="module")
def bundle(exported: Exported) -> Bundle:
    return load_bundle(exported[0])


def _models(bundle: Bundle) -> dict[str, onnx.ModelProto]:
    return {graph.name: onnx.load(bundle.graph_path(graph.name)) for graph in GRAPHS}


def test_the_bundle_says_what_it_is(bundle: Bundle, config: PolicyConfig) -> None:
    manifest = bundle.manifest
    assert [(g.name, g.rate) for g in manifest.graphs] == [(g.name, g.rate) for g in GRAPHS]
    assert [joint.name for joint in manifest.action_space.joints] == ["yaw", "elbow"]
    assert manifest.action_space.chunk_length == config.chunk
    assert manifest.cameras[0].history == config.motion.frames
    assert manifest.cameras[0].interval_s == pytest.approx(0.05)
    assert bundle.instruction_tokens(INSTRUCTION).shape == (1, 2, 8)


def test_parity_is_measured_and_kept(exported: Exported, bundle: Bundle) -> None:
    parity = bundle.manifest.provenance["parity"]
    assert set(parity) == {*(graph.name for graph in GRAPHS), "whole_chain"}
    assert max(parity.values()) <= MAX_ABS_ERROR
    assert exported[1]["parity_max_abs_error"] == parity


def test_graphs_chained_over_new_inputs_equal_pytorch(
    bundle: Bundle, policy: Video2ActPolicy
) -> None:
    """Other inputs than those the exporter checked itself with."""
    inputs = example_inputs(policy.config, seed=99)
    expected = chain(policy, inputs, GRAPHS)["chunk_rad"].numpy()
    known = {key: value.numpy() for key, value in inputs.items()}
    for graph in GRAPHS:
        spec = bundle.graph(graph.name)
        feeds = {t.name: known[key] for t, key in zip(spec.inputs, graph.inputs, strict=True)}
        with load(spec, bundle.graph_path(graph.name)) as engine:
            known |= engine.run(feeds)
    np.testing.assert_allclose(known["chunk_rad"], expected, atol=MAX_ABS_ERROR)


def test_another_policys_graph_fails_parity(bundle: Bundle, config: PolicyConfig) -> None:
    other = random_policy(config, seed=1)
    tensors = chain(other, example_inputs(config), GRAPHS)
    graph = next(graph for graph in GRAPHS if graph.name == "denoise")
    with (
        load(bundle.graph("denoise"), bundle.graph_path("denoise")) as engine,
        pytest.raises(BundleError, match=r"graph denoise: chunk_rad .* differs from PyTorch by"),
    ):
        graph_error(split_of(other), graph, engine, tensors)


def test_not_a_number_fails_parity(bundle: Bundle, policy: Video2ActPolicy) -> None:
    tensors = chain(policy, example_inputs(policy.config), GRAPHS)
    tensors["state_tokens"] = torch.full_like(tensors["state_tokens"], torch.nan)
    graph = next(graph for graph in GRAPHS if graph.name == "denoise")
    with (
        load(bundle.graph("denoise"), bundle.graph_path("denoise")) as engine,
        pytest.raises(BundleError, match="by nan"),
    ):
        graph_error(split_of(policy), graph, engine, tensors)


def test_an_operator_that_tensorrt_lacks_is_refused(policy: Video2ActPolicy) -> None:
    graph = Graph("denoise", "denoise", lambda _, x: torch.fft.rfft(x).real, ("noise",), ("real",))
    specs = tensor_specs(policy.config)
    specs["real"] = specs["noise"].model_copy(update={"name": "real"})
    with pytest.raises(BundleError, match="graph denoise: uses DFT"):
        onnx_from_torch(policy, graph, specs, example_inputs(policy.config))


def test_only_standard_operators_of_opset_18(bundle: Bundle) -> None:
    for name, model in _models(bundle).items():
        assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)], name
        assert not model.functions, name


def test_what_depends_on_weights_alone_is_folded(bundle: Bundle) -> None:
    models = _models(bundle)
    for name in ("denoise", "vdm_spatial", "vdm_motion"):
        assert not {node.op_type for node in models[name].graph.node} & {"Cos", "Sin"}, name
    stored = sum(np.prod(weight.dims) for weight in models["denoise"].graph.initializer)
    core = sum(weight.numel() for weight in _core_of(bundle).parameters())
    assert stored < core  # each weight once, though every solver step uses it


def _core_of(bundle: Bundle) -> torch.nn.Module:
    config = PolicyConfig.model_validate(bundle.manifest.provenance["config"])
    return Video2ActPolicy(config).core


def test_graphs_name_no_path_of_the_exporting_machine(bundle: Bundle) -> None:
    here = str(Path(torch.__file__).parent).encode()
    source = str(Path(__file__).parents[3]).encode()
    for graph in GRAPHS:
        content = bundle.graph_path(graph.name).read_bytes()
        assert here not in content, graph.name
        assert source not in content, graph.name


def test_a_node_is_named_after_the_module_that_holds_its_bias(bundle: Bundle) -> None:
    """Engines report the time of their layers by these names."""
    for model in _models(bundle).values():
        assert len({node.name for node in model.graph.node}) == len(model.graph.node)
        for node in model.graph.node:
            for name in node.input:
                if node.op_type in ("Add", "Conv") and name.endswith(".bias"):
                    assert node.name.startswith(name.removesuffix("bias")[:-1] + "/")
            if node.op_type in ("MatMul", "Conv"):
                assert node.name.startswith("policy.")


def test_a_folder_that_is_no_bundle_is_left_alone(checkpoint_file: Path, tmp_path: Path) -> None:
    (tmp_path / "letters").mkdir()
    letter = tmp_path / "letters" / "dear.txt"
    letter.write_text("x")
    arguments = ["export", str(POLICY_FILE), "--checkpoint", str(checkpoint_file)]
    result = CliRunner().invoke(cli, [*arguments, "-o", str(letter.parent)])
    assert result.exit_code == BundleError.exit_code
    assert "is not a bundle; remove it" in result.stderr
    assert letter.read_text() == "x"
