"""Engines: the real back end on real files, and the check of file against manifest."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.engines import load
from runtime.engines.fake import FakeEngine
from v2a.bundle import FileRef, GraphSpec
from v2a.errors import BundleError, ConfigError, EngineError


def spec(x: str = "x", dtype: str = "float32", size: int = 3) -> GraphSpec:
    def tensor(name: str) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": [1, size], "meaning": "test"}

    return GraphSpec.model_validate(
        {
            "name": "observe",
            "rate": "observe",
            "file": "observe.onnx",
            "inputs": [tensor(x)],
            "outputs": [tensor("y")],
        }
    )


@pytest.fixture
def double(tmp_path: Path) -> Path:
    pytest.importorskip("onnx", reason="writing the ONNX file of this test needs onnx")
    pytest.importorskip("onnxruntime", reason="this test runs ONNX Runtime")
    from tests.runtime.onnx_files import write_double

    write_double(tmp_path / "observe.onnx")
    return tmp_path / "observe.onnx"


def test_ort_runs_a_graph_into_new_arrays(double: Path) -> None:
    with load(spec(), double) as engine:
        first = engine.run({"x": np.array([[1, 2, 3]], np.float32)})["y"]
        engine.run({"x": np.zeros((1, 3), np.float32)})
    assert first.tolist() == [[2, 4, 6]]


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (spec(size=4), r"graph observe: input x is float32\[1, 4\] in the manifest but float32\["),
        (spec(dtype="float16"), r"input x is float16\[1, 3\] in the manifest but float32\[1, 3\]"),
        (spec(x="z"), r"manifest names the inputs \['z'\], observe.onnx has \['x'\]"),
    ],
)
def test_a_file_that_is_not_the_manifests_is_refused(
    double: Path, graph: GraphSpec, message: str
) -> None:
    with pytest.raises(BundleError, match=f"{message}.*; export the bundle again") as refusal:
        load(graph, double)
    assert "\n" not in str(refusal.value)


def test_a_dynamic_axis_is_refused(double: Path) -> None:
    from tests.runtime.onnx_files import write_double

    write_double(double, size="batch")
    with pytest.raises(BundleError, match=r"but float32\[1, -1\]"):
        load(spec(), double)


def test_ort_names_the_graph_when_it_is_fed_wrongly(double: Path) -> None:
    with load(spec(), double) as engine, pytest.raises(EngineError, match="graph observe: "):
        engine.run({"x": np.zeros((1, 4), np.float32)})


def test_a_damaged_file_is_one_line(double: Path) -> None:
    double.write_bytes(b"not onnx")
    with pytest.raises(EngineError, match="can't load") as refusal:
        load(spec(), double)
    assert "\n" not in str(refusal.value)


WEIGHTS = np.array([[2, 3, 5]], np.float32)


def beside(double: Path, location: str = "w.data") -> GraphSpec:
    """A sealed graph, at `double`, with its weights in a file of their own."""
    from tests.runtime.onnx_files import write_external

    write_external(double, WEIGHTS, location)
    data = double.with_name("w.data")
    data.write_bytes(WEIGHTS.tobytes())
    refs = [hashlib.sha256(file.read_bytes()).hexdigest() for file in (double, data)]
    update = {"sha256": refs[0], "data": FileRef(file="w.data", sha256=refs[1])}
    return spec().model_copy(update=update)


def test_ort_takes_weights_from_a_file_of_their_own(double: Path) -> None:
    with load(beside(double), double) as engine:
        double.with_name("w.data").write_bytes(b"gone")  # they are in memory
        found = engine.run({"x": np.ones((1, 3), np.float32)})["y"]
    assert found.tolist() == WEIGHTS.tolist()


@pytest.mark.parametrize("name", ["observe.onnx", "w.data"])
def test_a_file_that_was_replaced_after_the_check_is_refused(double: Path, name: str) -> None:
    graph = beside(double)
    file = double.with_name(name)
    file.write_bytes(file.read_bytes()[:-1] + b"\1")
    with pytest.raises(BundleError, match=f"{name}: sha256 is .* the file was changed"):
        load(graph, double)


@pytest.mark.parametrize(
    "location", ["w.bin", "../w.data", "/etc/passwd", "./w.data", "*/_ORT_MEM_ADDR_/*", ""]
)
def test_weights_in_a_file_that_the_manifest_does_not_name_are_refused(
    double: Path, location: str
) -> None:
    with pytest.raises(BundleError, match="does not name as this graph's data; export"):
        load(beside(double, location), double)


def test_weights_that_reach_beyond_their_file_are_refused(double: Path) -> None:
    graph = beside(double)
    double.with_name("w.data").write_bytes(b"short")
    data = FileRef(file="w.data", sha256=hashlib.sha256(b"short").hexdigest())
    with pytest.raises(BundleError, match="weight w does not fit into the file"):
        load(graph.model_copy(update={"data": data}), double)


def test_unknown_back_end_lists_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="choose from ort, fake"):
        load(spec(), Path("x"), backend="tpu")


def test_the_fake_checks_feeds_and_its_own_function() -> None:
    feeds = {"x": np.ones((1, 3), np.float32)}
    assert FakeEngine(spec()).run(feeds)["y"].tolist() == [[0, 0, 0]]
    with pytest.raises(EngineError, match=r"x is nothing, wanted float32\[1, 3\]"):
        FakeEngine(spec()).run({})
    wrong = FakeEngine(spec(), function=lambda feeds: {"y": np.zeros((1, 2), np.float32)})
    with pytest.raises(EngineError, match=r"y is float32\[1, 2\], wanted"):
        wrong.run(feeds)


def test_a_session_leaves_nothing_in_the_home_folder(tmp_path: Path) -> None:
    # ONNX Runtime 1.29 and newer collect events there, to send them.
    from tests.runtime.onnx_files import write_double  # here: needs onnx

    write_double(tmp_path / "double.onnx")
    home = tmp_path / "home"
    home.mkdir()
    environment = {**os.environ, "HOME": str(home), "XDG_CACHE_HOME": str(home / ".cache")}
    code = (
        "import sys, onnxruntime as ort;"
        "ort.InferenceSession(sys.argv[1], providers=['CPUExecutionProvider'])"
    )
    subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "double.onnx")], env=environment, check=True
    )
    assert list(home.rglob("*")) == []
