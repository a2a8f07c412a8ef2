"""`v2a bundle example`: valid ONNX, and motion that one can let run on a real arm."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.example_bundle import SPEED_RAD_S, STEP_S, SWAY_RAD
from runtime.mailbox import FrameMsg
from runtime.policy.graphs import PolicyGraphs
from v2a.bundle import Bundle, load_bundle
from v2a.cli import cli
from v2a.clock import MonotonicClock
from v2a.spans import SpanRing

ROBOT = """\
robot:
  name: two
  bus: {protocol: dynamixel2, port: none, baud: 1000000}
  joints:
    - {name: a, id: 1, model: xl430-w250, lower_rad: -1.6, upper_rad: 1.0, velocity_limit_rad_s: 1}
    - {name: b, id: 2, model: xl430-w250, lower_rad: 0.0, upper_rad: 0.2, velocity_limit_rad_s: 0.1}
camera: {source: "synthetic:", fps: 15, width: 64, height: 48}
instruction: wave
"""
MIDDLE, SWAY = np.array([-0.3, 0.1]), np.array([SWAY_RAD, 0.01])
SPEED = np.array([SPEED_RAD_S, 0.05])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("example")
    (folder / "robot.yaml").write_text(ROBOT)
    arguments = ["bundle", "example", str(folder / "robot.yaml"), "-o", str(folder / "bundle")]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
    assert "random weights, not a trained policy" in result.output
    return folder


@pytest.fixture(scope="module")
def bundle(folder: Path) -> Bundle:
    return load_bundle(folder / "bundle")


def test_the_manifest_says_what_it_is(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.policy == "example-random-weights"
    assert manifest.provenance["weights"] == "random"
    assert [joint.name for joint in manifest.action_space.joints] == ["a", "b"]
    assert set(manifest.instructions) == {"wave"}


def test_onnx_itself_takes_every_graph(bundle: Bundle) -> None:
    onnx = pytest.importorskip("onnx", reason="onnx checks the files that v2a writes without it")
    for graph in bundle.manifest.graphs:
        model = onnx.load(bundle.graph_path(graph.name))
        onnx.checker.check_model(model, full_check=True)
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
        shapes = [
            [d.dim_value for d in o.type.tensor_type.shape.dim] for o in inferred.graph.output
        ]
        assert shapes == [spec.shape for spec in graph.outputs]


@pytest.fixture(scope="module")
def graphs(bundle: Bundle) -> PolicyGraphs:
    pytest.importorskip("onnxruntime", reason="this test runs ONNX Runtime")
    graphs = PolicyGraphs(bundle, MonotonicClock())
    graphs.set_instruction("wave", SpanRing(64))
    return graphs


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32), st.lists(st.floats(-2, 2), min_size=2, max_size=2))
def test_a_chunk_goes_slowly_to_the_middle_and_sways_there(
    graphs: PolicyGraphs, seed: int, start: list[float]
) -> None:
    draws, ring = np.random.default_rng(seed), SpanRing(64)
    clip = draws.integers(0, 256, (4, 48, 64, 3), dtype=np.uint8)
    frame = FrameMsg(seed, 0, 0, 0, 0, image=clip[-1], history=())
    command = np.array(start)
    noise = draws.standard_normal((1, 32, 2)).astype(np.float32)
    condition = graphs.condition(clip, ring)
    chunk = graphs.chunk(frame, command, command, condition, 0.1, noise, ring)
    steps = np.abs(np.diff(np.vstack([command, chunk]), axis=0))
    assert (steps <= SPEED * STEP_S + 1e-6).all()
    for _ in range(60):  # the arm follows
        command = chunk[-1]
        chunk = graphs.chunk(frame, command, command, condition, 0.1, noise, ring)
    assert (np.abs(chunk - MIDDLE) <= SWAY + 1e-6).all()


def test_an_existing_folder_is_kept(folder: Path) -> None:
    arguments = ["bundle", "example", str(folder / "robot.yaml"), "-o", str(folder)]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code != 0
    assert "name a new folder" in result.output
    assert (folder / "robot.yaml").read_text() == ROBOT


@pytest.mark.real_time
def test_it_runs_dry(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime", reason="this test runs ONNX Runtime")
    monkeypatch.chdir(folder)
    arguments = ["run", "robot.yaml", "--bundle", "bundle", "--dry-run", "--seconds", "2"]
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code == 0, result.output
