"""`v2a build`: with the real TensorRT-RTX on the CPU, and its other half on fakes."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

from runtime.engines.build import (
    check_precisions,
    compile_plan,
    parse,
    random_feeds,
    relative_error,
)
from runtime.engines.plan_cache import Recipe
from runtime.engines.precisions import Changed, built_precisions, read_back
from runtime.engines.tensorrt_api import open_tensorrt
from tests.conftest import REPOSITORY
from tests.runtime.engines.fake_cuda import FakeRuntime
from tests.runtime.engines.fake_tensorrt import FakeTensorRt
from v2a.bundle import FileRef, GraphSpec, load_bundle, seal
from v2a.cli import cli
from v2a.errors import BundleError, EngineError

DEMO = REPOSITORY / "demo" / "bundle"


def run(*arguments: object) -> Result:
    return CliRunner().invoke(cli, ["build", *map(str, arguments)])


def spec(name: str = "observe", size: int = 8) -> GraphSpec:
    def tensor(name: str) -> dict[str, Any]:
        return {"name": name, "dtype": "float32", "shape": [1, size], "meaning": "test"}

    row = {"name": name, "rate": "observe", "file": f"graphs/{name}.onnx"}
    return GraphSpec.model_validate({**row, "inputs": [tensor("x")], "outputs": [tensor("y")]})


# --- the real compiler ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def rtx() -> Any:
    pytest.importorskip(
        "tensorrt_rtx", reason="NVIDIA's compiler is not installed: pip install '.[validate]'"
    )
    return open_tensorrt("rtx")


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Writes an ONNX graph y = f(x) on float32 [1, 8]."""
    onnx = pytest.importorskip("onnx", reason="writing the ONNX file of this test needs onnx")
    helper = onnx.helper

    def write(nodes: list[Any], weights: Mapping[str, npt.NDArray[Any]], out: list[int]) -> Path:
        x, y = (
            helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape)
            for name, shape in (("x", [1, 8]), ("y", out))
        )
        tensors = [onnx.numpy_helper.from_array(array, name) for name, array in weights.items()]
        graph = helper.make_graph(nodes, "g", [x], [y], tensors)
        opset = [helper.make_opsetid("", 18)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), tmp_path / "g.onnx")
        return tmp_path / "g.onnx"

    return write


# Every graph of the demo's and of golden's policy is tests/export/pipeline/test_compiles.py's.
def test_one_graph_of_the_demo_builds_for_two_capabilities(rtx: Any) -> None:
    bundle = load_bundle(DEMO)
    network = parse(rtx, bundle.graph("condition"), bundle.graph_path("condition"))
    one, timings = compile_plan(network, Recipe(), [86])
    both, _ = compile_plan(network, Recipe(), [86, 89])
    assert both.nbytes > one.nbytes > 500_000
    assert timings == b""


def test_an_unknown_capability_is_refused_once_with_the_known_ones(rtx: Any) -> None:
    result = run(DEMO, "--engine", "rtx", "--sm", 87)
    assert result.exit_code == 4
    assert result.stderr.count("\n") == 1
    assert "can't build for SM87; give --sm one of 75, 80, 86, 89, 120, 121" in result.stderr


def onnx_node(kind: str, inputs: list[str], output: str, name: str) -> Any:
    import onnx

    return onnx.helper.make_node(kind, inputs, [output], name=name)


def test_an_operator_that_tensorrt_lacks_is_named_with_its_node_and_fix(
    rtx: Any, written: Callable[..., Path]
) -> None:
    import onnx

    dft = onnx.helper.make_node("DFT", ["x3"], ["y"], name="band/dft")
    grow = onnx_node("Reshape", ["x", "shape"], "x3", "grow")
    path = written([grow, dft], {"shape": np.array([1, 8, 1])}, [1, 8, 2])
    with pytest.raises(EngineError) as refusal:
        parse(rtx, spec(), path)
    message = str(refusal.value)
    assert message.startswith("graph observe: TensorRT-RTX 1.7")
    assert "does not support node band/dft (DFT): " in message
    assert message.endswith(
        "; write it as a product with a constant matrix, and export the bundle again"
    )
    assert "\n" not in message


def test_asymmetric_quantisation_is_refused_with_its_fix(
    rtx: Any, written: Callable[..., Path]
) -> None:
    nodes = [
        onnx_node("QuantizeLinear", ["x", "s", "z"], "q", "quantise"),
        onnx_node("DequantizeLinear", ["q", "s", "z"], "y", "dequantise"),
    ]
    path = written(nodes, {"s": np.float32(0.1), "z": np.uint8(3)}, [1, 8])
    with pytest.raises(EngineError, match=r"node quantise \(QuantizeLinear\).*symmetric INT8"):
        parse(rtx, spec(), path)


def test_a_file_that_is_no_onnx_is_one_line(rtx: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"not onnx")
    with pytest.raises(EngineError, match=r"can't read it \(.*\); export the bundle") as refusal:
        parse(rtx, spec(), tmp_path / "bad.onnx")
    assert "\n" not in str(refusal.value)


def test_an_empty_file_parses_and_is_refused_all_the_same(rtx: Any, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"")
    with pytest.raises(BundleError, match=r"manifest names the inputs \['x'\], .* has \[\]"):
        parse(rtx, spec(), tmp_path / "bad.onnx")


def test_a_graph_of_another_size_than_the_manifests_is_refused(
    rtx: Any, written: Callable[..., Path]
) -> None:
    path = written([onnx_node("Neg", ["x"], "y", "neg")], {}, [1, 8])
    with pytest.raises(
        BundleError, match=r"input x is float32\[1, 9\] in the manifest but float32"
    ):
        parse(rtx, spec(size=9), path)


def test_weights_in_a_file_of_their_own_are_found_beside_the_graph(
    rtx: Any, written: Callable[..., Path]
) -> None:
    import onnx

    path = written(
        [onnx_node("MatMul", ["x", "w"], "y", "product")],
        {"w": np.random.default_rng(0).standard_normal((8, 8)).astype(np.float32)},
        [1, 8],
    )
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location="g.data", size_threshold=0)
    assert path.with_name("g.data").stat().st_size >= 256
    with pytest.raises(BundleError, match="which the manifest does not name"):
        parse(rtx, spec(), path)
    graph = spec().model_copy(update={"data": FileRef(file="graphs/g.data")})
    assert parse(rtx, graph, path).asked() == {"product": "FLOAT"}
    path.with_name("g.data").unlink()
    with pytest.raises(BundleError, match=r"g\.data: named in the manifest but missing"):
        parse(rtx, graph, path)


def quantised(inputs: tuple[str, str]) -> list[Any]:
    """y = x @ w.T, with the inputs that are named going through INT8 first."""
    nodes, operands = [], []
    for name in ("x", "w"):
        if name in inputs:
            nodes.append(onnx_node("QuantizeLinear", [name, "s", "z"], f"{name}q", f"q_{name}"))
            nodes.append(
                onnx_node("DequantizeLinear", [f"{name}q", "s", "z"], f"{name}d", f"d_{name}")
            )
        operands.append(f"{name}d" if name in inputs else name)
    turned = onnx_node("Transpose", [operands[1]], "turned", "turn")
    return [*nodes, turned, onnx_node("MatMul", [operands[0], "turned"], "y", "product")]


@pytest.mark.parametrize(
    ("inputs", "asked"), [(("x", "w"), "INT8"), (("w",), "FLOAT"), ((), "FLOAT")]
)
def test_what_a_network_asks_for_is_read_from_its_types(
    rtx: Any, written: Callable[..., Path], inputs: tuple[str, str], asked: str
) -> None:
    weights = {"s": np.float32(0.1), "z": np.int8(0), "w": np.eye(8, dtype=np.float32)}
    network = parse(rtx, spec(), written(quantised(inputs), weights, [1, 8]))
    assert network.asked() == {"product": asked}
    assert compile_plan(network, Recipe(), [86])[0].nbytes > 0


@pytest.fixture
def half(written: Callable[..., Path]) -> Callable[[str], Path]:
    """Writes y = x @ x.T @ x in a half precision: FLOAT16 or BFLOAT16."""
    import onnx

    def cast(source: str, output: str, to: int) -> Any:
        return onnx.helper.make_node("Cast", [source], [output], name=output, to=to)

    def write(precision: str) -> Path:
        nodes = [
            cast("x", "xh", onnx.TensorProto.DataType.Value(precision)),
            onnx_node("Transpose", ["xh"], "turned", "turn"),
            onnx_node("MatMul", ["turned", "xh"], "square", "outer"),
            onnx_node("MatMul", ["xh", "square"], "yh", "product"),
            cast("yh", "y", onnx.TensorProto.FLOAT),
        ]
        return written(nodes, {}, [1, 8])

    return write


@pytest.mark.parametrize(
    ("written_as", "asked"), [("FLOAT16", "HALF"), ("BFLOAT16", "BF16")], ids=["fp16", "bf16"]
)
def test_half_precision_is_asked_for_by_the_graph_alone(
    rtx: Any, half: Callable[[str], Path], written_as: str, asked: str
) -> None:
    network = parse(rtx, spec(), half(written_as))
    assert network.asked() == {"outer": asked, "product": asked}


@pytest.mark.parametrize("sm", [75, 80, 86, 89, 120, 121])
@pytest.mark.parametrize(("written_as", "precision"), [("FLOAT16", "fp16"), ("BFLOAT16", "bf16")])
def test_what_is_said_about_a_gpus_precisions_is_what_the_compiler_does(
    rtx: Any, half: Callable[[str], Path], sm: int, written_as: str, precision: str
) -> None:
    graph = spec().model_copy(update={"precision": precision})
    network = parse(rtx, graph, half(written_as))
    if (precision, sm) == ("bf16", 75):
        with pytest.raises(EngineError, match=r"can't build it for SM75: .* datatypes: b16"):
            compile_plan(network, Recipe(), [sm])
        with pytest.raises(EngineError, match="SM75 has no bf16"):
            check_precisions([graph], [sm])
    else:
        assert compile_plan(network, Recipe(), [sm])[0].nbytes > 0
        check_precisions([graph], [sm])


# --- precisions read back ------------------------------------------------------------------------


def layer(
    nodes: str, types: list[str], key: str = "Format/Datatype", **more: Any
) -> dict[str, Any]:
    metadata = "\x1f".join(f"[ONNX Layer: {name}]" for name in nodes.split())
    return {"Metadata": metadata, "Inputs": [{"Name": "t", key: t} for t in types], **more}


def inspected(*layers: Any) -> str:
    return json.dumps({"Layers": list(layers)})


@pytest.mark.parametrize(
    ("written", "precision"),
    [  # as NVIDIA's documentation and published engine dumps have them
        ("Row major linear FP32", "FLOAT"),
        ("Row major linear FP16 format", "HALF"),
        ("Channel major FP16 format where channel % 4 == 0", "HALF"),
        ("Thirty-two wide channel vectorized row major Int8 format", "INT8"),
        ("Row major linear BFloat16 format", "BF16"),
        ("Row major linear FP8 format", "FP8"),
        ("Half NCHW", "HALF"),
        ("Float", "FLOAT"),
        ("Int8", "INT8"),
    ],
)
@pytest.mark.parametrize("key", ["Format/Datatype", "Datatype", "DataType"])
def test_the_inspectors_names_of_a_precision(written: str, precision: str, key: str) -> None:
    assert built_precisions(inspected(layer("a b", [written], key))) == {
        "a": {precision},
        "b": {precision},
    }


def test_a_fused_layers_weights_count_as_what_it_reads() -> None:
    fused = layer("conv relu", ["Row major linear FP32"], Weights={"Type": "Int8", "Count": 9})
    assert built_precisions(inspected(fused))["conv"] == {"FLOAT", "INT8"}


def test_bare_names_and_layers_without_a_source_show_nothing() -> None:
    assert built_precisions(inspected("a + b", {"Name": "Reformat"}, layer("", ["Half"]))) == {}


def test_each_layer_is_compared_with_what_was_asked() -> None:
    asked = {"a": "FP8", "b": "FP8", "c": "HALF", "folded": "HALF"}
    built = built_precisions(
        inspected(layer("a", ["FP8"]), layer("b", ["Float"]), layer("c", ["Half", "Float"]))
    )
    result = read_back(asked, built)
    assert result.kept == {"FP8": 1, "HALF": 1}
    assert result.changed == [Changed("b", "FP8", "FLOAT")]
    assert result.unseen == 1
    assert result.lost == []


def test_a_precision_that_no_layer_has_is_lost() -> None:
    built = {"a": {"FLOAT"}, "b": {"FLOAT"}, "c": {"FLOAT"}}
    assert read_back({"a": "FP8", "b": "FP8", "c": "FLOAT"}, built).lost == ["FP8"]


# --- numbers -------------------------------------------------------------------------------------


def test_random_feeds_are_the_same_each_time_and_of_the_right_kind() -> None:
    dump = spec().model_dump()
    kinds = ["float32", "float16", "uint8", "int64"]
    dump["inputs"] = [{**dump["inputs"][0], "name": kind, "dtype": kind} for kind in kinds]
    specs = GraphSpec.model_validate(dump).inputs
    first, second = random_feeds(specs), random_feeds(specs)
    for kind in kinds:
        assert first[kind].dtype == kind
        assert first[kind].shape == (1, 8)
        np.testing.assert_array_equal(first[kind], second[kind])
    assert first["float32"].std() > 0
    assert first["int64"].tolist() == [[0] * 8]


def test_relative_error_sees_what_is_not_finite() -> None:
    one = np.ones(3, np.float32)
    assert relative_error(one * 4, one * 4) == 0
    assert relative_error(np.array([8.0, 4, 4]), one * 8) == 0.5
    for a, b in ((np.nan, 1.0), (1.0, np.nan), (np.inf, np.inf)):
        assert np.isnan(relative_error(np.array([1.0, a]), np.array([1.0, b])))


# --- building for this machine's GPU, on fakes ---------------------------------------------------


class Robot:
    """A machine with a (fake) GPU and TensorRT, and a bundle whose one graph is y = x + x."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("onnx", reason="writing the bundle of this test needs onnx")
        pytest.importorskip("onnxruntime", reason="plans are compared with ONNX Runtime")
        from tests.runtime.conftest import manifest
        from tests.runtime.onnx_files import write_double

        self.bundle = folder / "bundle"
        for name in ("graphs", "embeddings"):
            (self.bundle / name).mkdir(parents=True)
        write_double(self.bundle / "graphs" / "observe.onnx", size=8)
        (self.bundle / "embeddings" / "task.npy").write_bytes(b"")
        seal(self.bundle, manifest().model_copy(update={"graphs": [spec()]}))
        self.cache = folder / "v2a" / "plans"
        self.rt = FakeRuntime()
        self.trt = FakeTensorRt(self.rt, spec(), lambda feeds: {"y": feeds["x"] * 2})
        patch.setenv("XDG_CACHE_HOME", str(folder))
        patch.setitem(sys.modules, "tensorrt", self.trt)
        patch.setitem(sys.modules, "cuda.bindings", ModuleType("cuda.bindings"))
        patch.setitem(sys.modules, "cuda.bindings.runtime", self.rt)

    def build(self, *options: object) -> tuple[Result, dict[str, Any]]:
        result = run(self.bundle, "--json", *options)
        assert self.rt.alive() == 0
        return result, json.loads(result.stdout)["graphs"]["observe"]


@pytest.fixture
def robot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Robot:
    return Robot(tmp_path, monkeypatch)


def heavy(name: str, precision: str) -> SimpleNamespace:
    """A matrix product of the parsed network."""
    tensor = SimpleNamespace(name=f"{name}.in", dtype=SimpleNamespace(name=precision))
    return SimpleNamespace(
        name=name,
        type=SimpleNamespace(name="MATRIX_MULTIPLY"),
        num_inputs=1,
        num_outputs=1,
        get_input=lambda index: tensor,
        get_output=lambda index: SimpleNamespace(name=f"{name}.out"),
    )


def test_a_plan_is_built_checked_and_kept_and_found_the_next_time(robot: Robot) -> None:
    robot.trt.network = [heavy("product", "HALF")]
    robot.trt.layers = [layer("product", ["Half"])]
    result, row = robot.build()
    assert result.exit_code == 0, result.output
    assert (row["parsed"], row["built"], row["cached"]) == (True, True, False)
    assert row["asked"] == {"HALF": 1}
    assert row["check"] == {
        "cuda_graph": True, "gpu_ms": 3.0, "error": 0.0,
        "kept": {"HALF": 1}, "changed": [], "unseen": 0,
    }  # fmt: skip
    again, cached = robot.build()
    assert again.exit_code == 0
    assert len(robot.trt.builds) == 1
    assert cached == {**row, "cached": True, "seconds": cached["seconds"]}


def test_options_reach_the_builder_and_make_another_plan(robot: Robot) -> None:
    robot.build()
    robot.build("--optimization-level", 5, "--workspace-mib", 100)
    first, second = robot.trt.builds
    assert (first.builder_optimization_level, first.workspace_bytes) == (3, 2048 << 20)
    assert (second.builder_optimization_level, second.workspace_bytes) == (5, 100 << 20)
    assert first.cleared == second.cleared == ["tf32"]
    assert first.profiling_verbosity == "detailed"
    assert len(list(robot.cache.glob("*.plan"))) == 2


def test_the_second_build_begins_with_the_timings_of_the_first(robot: Robot) -> None:
    robot.build()
    robot.build("--optimization-level", 5)
    assert [config.timings for config in robot.trt.builds] == [b"", b"timings of the fake"]


def test_timings_of_another_tensorrt_are_left_alone(robot: Robot) -> None:
    robot.build()
    (timing,) = robot.cache.glob("*.timing")
    timing.write_bytes(b"somebody else's")
    robot.build("--optimization-level", 5)
    assert robot.trt.builds[1].timings == b""


@pytest.mark.parametrize("wrong", [1.1, np.nan])
def test_a_plan_that_computes_something_else_is_not_kept(robot: Robot, wrong: float) -> None:
    robot.trt.function = lambda feeds: {"y": feeds["x"] * 2 * wrong}
    result, row = robot.build()
    assert result.exit_code == 4
    assert "graph observe: y differs from ONNX Runtime by" in row["error"]
    assert (row["parsed"], row["built"]) == (True, False)
    assert not list(robot.cache.glob("*.plan"))


def test_a_plan_that_lost_its_precision_is_not_kept(robot: Robot) -> None:
    robot.trt.network = [heavy("product", "FP8")]
    robot.trt.layers = [layer("product", ["Row major linear FP32"])]
    _, row = robot.build()
    assert "no layer has the asked precision FP8 (product: FLOAT" in row["error"]
    assert not list(robot.cache.glob("*.plan"))


def test_a_layer_that_was_changed_is_a_warning(robot: Robot) -> None:
    robot.trt.network = [heavy("one", "INT8"), heavy("two", "INT8")]
    robot.trt.layers = [layer("one", ["Int8"]), layer("two", ["Half"])]
    result = run(robot.bundle)
    assert result.exit_code == 0
    assert "warning: two: INT8 asked, HALF built" in result.stdout


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ("build", "can't build it for this GPU: could not find any implementation for node conv1"),
        ("deserialize", "can't load its plan (magic tag does not match)"),
        ("enqueue", "TensorRT refused to run (no kernel image is available)"),
    ],
)
def test_what_the_builder_refuses_is_the_graphs_error(
    robot: Robot, refuse: str, message: str
) -> None:
    robot.trt.refuse = refuse
    result, row = robot.build()
    assert result.exit_code == 4
    assert message in row["error"]
    assert message in result.stderr
    assert f"error: {robot.bundle}: 1 of 1 graphs could not be built\n" in result.stderr
    assert not list(robot.cache.glob("*.p*"))


def test_a_precision_that_the_gpu_lacks_is_one_line_before_anything_is_built(robot: Robot) -> None:
    graph = spec().model_copy(update={"precision": "bf16"})
    manifest = load_bundle(robot.bundle).manifest
    seal(robot.bundle, manifest.model_copy(update={"graphs": [graph]}))
    robot.rt.capability = (7, 2)
    result = run(robot.bundle)
    assert result.exit_code == 4
    assert result.stderr == (
        "error: SM72 has no bf16; graphs in bf16: 1 (observe, ...); set their `precision` in "
        "the policy's file to fp16 or fp32 and export again, or use a GPU of SM80 or newer\n"
    )
    assert not robot.trt.builds


def test_sm_is_for_tensorrt_rtx_alone(robot: Robot) -> None:
    result = run(robot.bundle, "--sm", 86)
    assert result.exit_code == 4
    assert "leave --sm out, or use --engine rtx" in result.stderr
