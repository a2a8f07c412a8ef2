"""NVIDIA's compiler takes every graph of the demo's and of golden's policy, in fp32 and in fp16."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import onnx
import onnx_ir as ir
import pytest
from click.testing import CliRunner
from onnx_ir.passes.common import RemoveUnusedNodesPass

from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from export.own.rates import GRAPHS, split_of
from export.pipeline.config import PrecisionConfig
from export.pipeline.onnx_from_torch import save
from export.pipeline.parity import LIMITS
from export.pipeline.precision import narrow
from tests.conftest import REPOSITORY
from tests.export.conftest import GOLDEN, POLICY_FILE
from v2a.bundle import Bundle, GraphSpec, load_bundle, seal
from v2a.cli import cli

DEMO = REPOSITORY / "demo" / "bundle"
SMS = [86, 89]
ASKED = {"fp32": "FLOAT", "fp16": "HALF"}  # TensorRT's names of the precisions


def export(*arguments: object) -> Bundle:
    result = CliRunner().invoke(cli, ["export", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return load_bundle(Path(str(arguments[-1])))


def narrowed(bundle: Bundle, out: Path) -> Bundle:
    """`bundle` as if it had been exported in fp16: the same rewrite, without tracing once more."""
    (out / "graphs").mkdir(parents=True)
    shutil.copytree(bundle.path / "embeddings", out / "embeddings")
    graphs = [_narrowed(graph) for graph in bundle.manifest.graphs]
    for graph in graphs:
        wide = onnx.shape_inference.infer_shapes(onnx.load(bundle.graph_path(graph.name)))
        model = ir.from_proto(wide)
        narrow(model, "fp16", {spec.name: spec.dtype for spec in (*graph.inputs, *graph.outputs)})
        RemoveUnusedNodesPass()(model)
        save(model, out / graph.file)
    seal(out, bundle.manifest.model_copy(update={"graphs": graphs}))
    return load_bundle(out)


def _narrowed(graph: GraphSpec) -> GraphSpec:
    sides = {
        side: [
            spec.model_copy(update={"dtype": "float16"}) if "_kv" in spec.name else spec
            for spec in specs
        ]
        for side, specs in (("inputs", graph.inputs), ("outputs", graph.outputs))
    }
    return graph.model_copy(update={"precision": "fp16", **sides})


# --- the compiler --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def golden_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    if not GOLDEN.is_dir():
        pytest.skip("the released policy's golden folder is not beside this checkout")
    # Its graphs' parity is test_golden.py's.
    out = tmp_path_factory.mktemp("golden") / "fp32"
    return export(GOLDEN / "config.json", "--no-check", "-o", out)


@pytest.mark.timeout(300)  # golden's export and a compilation: three quarters of a minute of CPU
@pytest.mark.skipif(
    find_spec("tensorrt_rtx") is None,
    reason="NVIDIA's compiler is not installed: pip install '.[validate]'",
)
@pytest.mark.parametrize("precision", ASKED)
@pytest.mark.parametrize("policy", ["demo", "golden"])
def test_every_graph_compiles_for_sm86_and_sm89(
    policy: str, precision: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    bundle = load_bundle(DEMO) if policy == "demo" else request.getfixturevalue("golden_bundle")
    if precision == "fp16":
        bundle = narrowed(bundle, tmp_path / "fp16")
    rows = compiled(bundle)
    assert list(rows) == [graph.name for graph in bundle.manifest.graphs]
    for name, row in rows.items():
        assert (row["parsed"], row["built"], row["error"]) == (True, True, None), name
        assert row["bytes"] > 0.9 * weight_bytes(bundle, name), name  # a plan holds the weights
        assert row["asked"].keys() == {ASKED[precision]}, name


def compiled(bundle: Bundle) -> dict[str, Any]:
    """By graph, what `v2a build` prints. A process of its own: a crash in the compiler is a failed
    test, with the others still to come."""
    targets = [option for sm in SMS for option in ("--sm", str(sm))]
    done = subprocess.run(
        [sys.executable, "-m", "v2a", "build", str(bundle.path), "--engine", "rtx", *targets,
         "--json"],
        cwd=REPOSITORY, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stderr}"
    report = json.loads(done.stdout)
    assert report["sm"] == SMS
    graphs: dict[str, Any] = report["graphs"]
    return graphs


def weight_bytes(bundle: Bundle, graph: str) -> int:
    model = onnx.load(bundle.graph_path(graph))
    return sum(len(onnx.numpy_helper.to_array(w).tobytes()) for w in model.graph.initializer)


# --- this project's own policies in fp16 ---------------------------------------------------------


@pytest.fixture(scope="module")
def half(checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The tiny policy with one more line in its file."""
    folder = tmp_path_factory.mktemp("half")
    file = folder / "tiny.yaml"
    precision = "precision: {vae: fp16, dit: fp16, core: fp16}\n"
    file.write_text(POLICY_FILE.read_text() + precision)
    return export(file, "--checkpoint", checkpoint_file, "-o", folder / "bundle")


def test_an_own_policy_is_exported_in_fp16_within_its_limits(half: Bundle) -> None:
    parity = half.manifest.provenance["parity"]
    assert set(parity) == {*(graph.name for graph in GRAPHS), "whole_chain"}
    for graph in half.manifest.graphs:
        assert graph.precision == "fp16"
        assert 1e-6 < parity[graph.name] <= LIMITS["fp16"], graph.name  # else nothing is narrow
        for tensor in (*graph.inputs, *graph.outputs):
            narrow_type = "float16" if tensor.name.endswith("_kv") else ("float32", "uint8")
            assert tensor.dtype in narrow_type, tensor.name


@pytest.mark.parametrize(
    ("network", "graphs"),
    [
        ("vae", {"vae_spatial", "vae_motion"}),
        ("dit", {"vdm_spatial", "vdm_motion"}),
        ("core", {"instruction", "frame_encode", "condition", "observe", "denoise"}),
    ],
)
def test_each_graph_has_the_precision_of_its_network(
    network: str, graphs: set[str], config: PolicyConfig
) -> None:
    chosen = PrecisionConfig.model_validate({network: "fp16"})
    split = split_of(Video2ActPolicy(config.model_copy(update={"precision": chosen})))
    assert {name for name, precision in split.precision.items() if precision == "fp16"} == graphs


def test_a_narrowed_bundle_is_what_v2a_export_writes(
    half: Bundle, exported: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    twin = narrowed(load_bundle(exported[0]), tmp_path / "twin")
    for graph in half.manifest.graphs:
        models = [onnx.load(bundle.graph_path(graph.name)) for bundle in (half, twin)]
        assert list(content(models[0])) == list(content(models[1])), graph.name
        exact = {"file", "sha256"}
        assert graph.model_dump(exclude=exact) == twin.graph(graph.name).model_dump(exclude=exact)


def content(model: onnx.ModelProto) -> Iterator[bytes]:
    """Nodes, in order, and weights; the nodes' own names are counters."""
    for node in model.graph.node:
        node.ClearField("name")
        yield node.SerializeToString(deterministic=True)
    for weight in sorted(model.graph.initializer, key=lambda weight: weight.name):
        yield weight.SerializeToString(deterministic=True)
