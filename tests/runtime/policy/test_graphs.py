"""Each tensor is computed once per change of its inputs, from the inputs it should have."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.engines.base import Engine, EngineFactory, Tensors
from runtime.engines.fake import FakeEngine
from runtime.mailbox import FrameMsg
from runtime.policy.graphs import PolicyGraphs
from tests.runtime.conftest import GRAPHS, SIZE, TASK, K, T, fakes
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import FakeClock
from v2a.errors import BundleError, EngineError
from v2a.spans import SpanRing

RING = SpanRing()


def counting(
    runs: Counter[str], fed: dict[str, Mapping[str, np.ndarray]], closed: list[str]
) -> EngineFactory:
    """Fake engines that note what they are fed, and when they are closed."""

    def make(graph: GraphSpec, path: Path) -> Engine:
        def note(feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
            runs[graph.name] += 1
            fed[graph.name] = feeds
            return {}

        engine = fakes(**{graph.name: note})(graph, path)
        engine.close = lambda: closed.append(graph.name)  # type: ignore[method-assign] # noted
        return engine

    return make


class Noted:
    def __init__(self, bundle: Bundle) -> None:
        self.runs: Counter[str] = Counter()
        self.fed: dict[str, Mapping[str, np.ndarray]] = {}
        self.closed: list[str] = []
        factory = counting(self.runs, self.fed, self.closed)
        self.graphs = PolicyGraphs(bundle, FakeClock(), factory)


@pytest.fixture
def noted(bundle: Bundle) -> Noted:
    return Noted(bundle)


def frame(seq: int) -> FrameMsg:
    image = np.full((SIZE, SIZE, 3), seq, np.uint8)
    return FrameMsg(seq, 0, 0, 0, 0, image, ((0, image),))


def act(noted: Noted, seq: int) -> np.ndarray:
    condition: dict[str, Any] = dict.fromkeys(("video_kv", "register_kv"), np.zeros(1, np.float32))
    noise = np.zeros((1, K, 2), np.float32)
    joints = np.array([0.1, 0.2])
    return noted.graphs.chunk(frame(seq), joints, joints + 1, condition, 0.5, noise, RING)


def test_the_instruction_is_computed_once_and_frames_once_each(noted: Noted) -> None:
    for _ in range(3):
        noted.graphs.set_instruction(TASK, RING)
    for seq in (1, 1, 2):
        act(noted, seq)
    assert noted.runs == {"instruction": 1, "frame_encode": 2, "observe": 3, "denoise": 3}


def test_system_1_is_fed_what_it_should_be(noted: Noted) -> None:
    noted.graphs.set_instruction(TASK, RING)
    chunk_rad = act(noted, 7)
    assert (chunk_rad.shape, chunk_rad.dtype) == ((K, 2), np.dtype(np.float64))
    assert np.all(noted.fed["frame_encode"]["image"] == 7)
    np.testing.assert_allclose(noted.fed["observe"]["position_rad"], [[0.1, 0.2]], rtol=1e-6)
    np.testing.assert_allclose(noted.fed["denoise"]["command_rad"], [[1.1, 1.2]], rtol=1e-6)
    assert noted.fed["observe"]["condition_age_s"].tolist() == [0.5]


def test_the_spatial_stream_sees_the_newest_frame_and_the_motion_stream_all(noted: Noted) -> None:
    noted.graphs.set_instruction(TASK, RING)
    clip = np.arange(T, dtype=np.uint8)[:, None, None, None] * np.ones((SIZE, SIZE, 3), np.uint8)
    outputs = noted.graphs.condition(clip, RING)
    assert set(outputs) == {"video_kv", "register_kv"}
    assert np.unique(noted.fed["vae_spatial"]["frames"]).tolist() == [T - 1]
    assert noted.fed["vae_motion"]["frames"][0, :, 0, 0, 0].tolist() == [0, 1, 2]


def test_warming_runs_every_graph_once(noted: Noted) -> None:
    noted.graphs.warm()
    assert noted.runs == dict.fromkeys(GRAPHS, 1)


def test_closing_closes_every_engine(noted: Noted) -> None:
    noted.graphs.close()
    assert sorted(noted.closed) == sorted(GRAPHS)


def test_an_engine_that_does_not_load_closes_those_that_did(bundle: Bundle) -> None:
    closed: list[str] = []
    good = counting(Counter(), {}, closed)

    def factory(graph: GraphSpec, path: Path) -> Engine:
        if graph.name == "observe":
            raise BundleError("observe is bad")
        return good(graph, path)

    with pytest.raises(BundleError, match="observe is bad"):
        PolicyGraphs(bundle, FakeClock(), factory)
    assert set(closed) == set(GRAPHS) - {"observe", "denoise"}


def test_an_input_that_the_runtime_does_not_have_is_refused(bundle: Bundle) -> None:
    observe = bundle.graph("observe")
    extra = observe.inputs[0].model_copy(update={"name": "gripper_force"})
    changed = observe.model_copy(update={"inputs": [*observe.inputs, extra]})
    graphs = [changed if g.name == "observe" else g for g in bundle.manifest.graphs]
    odd = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match=r"graph observe: .* does not supply gripper_force"):
        PolicyGraphs(odd, FakeClock(), fakes())


def test_no_instruction_and_an_unknown_one_are_refused(noted: Noted) -> None:
    with pytest.raises(BundleError, match="no instruction is set"):
        act(noted, 1)
    with pytest.raises(BundleError, match="dance"):
        noted.graphs.set_instruction("dance", RING)


def reshaped(bundle: Bundle, graph: str, tensor: str, shape: list[int]) -> Bundle:
    """`bundle` whose manifest has another shape for one tensor of one graph."""

    def changed(spec: GraphSpec) -> GraphSpec:
        sides = {
            side: [
                t.model_copy(update={"shape": shape}) if t.name == tensor else t
                for t in getattr(spec, side)
            ]
            for side in ("inputs", "outputs")
        }
        return spec.model_copy(update=sides)

    graphs = [changed(g) if g.name == graph else g for g in bundle.manifest.graphs]
    return Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))


@pytest.mark.parametrize(
    ("graph", "tensor", "shape", "message"),
    [
        (
            "denoise",
            "chunk_rad",
            [1, K, 1],  # would be played on every joint
            r"graph denoise: output chunk_rad is float32\[1, 16, 1\], .+ float32\[1, 16, 2\]",
        ),
        ("observe", "position_rad", [1, 3], "graph observe: input position_rad is .+, 3"),
        ("frame_encode", "image", [1, 9, 8, 3], "graph frame_encode: input image is uint8"),
        ("vae_motion", "frames", [1, 4, 8, 8, 3], "graph vae_motion: input frames is uint8"),
        ("denoise", "video_kv", [2], r"input video_kv is float32\[2\], .+ float32\[1\]; export"),
    ],
)
def test_graphs_that_do_not_fit_together_are_refused(
    bundle: Bundle, graph: str, tensor: str, shape: list[int], message: str
) -> None:
    with pytest.raises(BundleError, match=message):
        PolicyGraphs(reshaped(bundle, graph, tensor, shape), FakeClock(), fakes())


def test_an_input_that_no_graph_makes_is_refused(bundle: Bundle) -> None:
    graphs = [
        g.model_copy(update={"outputs": []}) if g.name == "vdm_motion" else g
        for g in bundle.manifest.graphs
    ]
    odd = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match="condition: the runtime does not supply features_motion"):
        PolicyGraphs(odd, FakeClock(), fakes())


class OtherShape(Engine):
    """An engine whose file declares one shape and returns another."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._shape = shape

    def run(self, feeds: Mapping[str, np.ndarray]) -> Tensors:
        return {"chunk_rad": np.zeros(self._shape, np.float32)}

    def close(self) -> None: ...


@pytest.mark.parametrize("shape", [(1, K, 1), (1, K, 3), (1, 1, 2), (K, 2), ()])
def test_outputs_of_another_shape_than_declared_are_refused(
    bundle: Bundle, shape: tuple[int, ...]
) -> None:
    def engines(graph: GraphSpec, path: Path) -> Engine:
        return OtherShape(shape) if graph.name == "denoise" else FakeEngine(graph, path)

    graphs = PolicyGraphs(bundle, FakeClock(), engines)
    graphs.set_instruction(TASK, RING)
    joints = np.zeros(2)
    condition: dict[str, Any] = dict.fromkeys(("video_kv", "register_kv"), np.zeros(1, np.float32))
    noise = np.zeros((1, K, 2), np.float32)
    with pytest.raises(EngineError, match=r"graph denoise: chunk_rad is float32\[.*\], wanted"):
        graphs.chunk(frame(1), joints, joints, condition, 0.5, noise, RING)


def test_a_released_policys_bundle_is_refused_in_one_line(bundle: Bundle) -> None:
    graphs = [graph.model_copy(update={"name": "instruction_video"})
              for graph in bundle.manifest.graphs[:1]]  # fmt: skip
    released = Bundle(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    with pytest.raises(BundleError, match="a released policy's bundle; this v2a"):
        PolicyGraphs(released, FakeClock())
