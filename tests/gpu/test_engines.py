"""The demo's graphs by TensorRT and TensorRT-RTX on a real GPU, against ONNX Runtime on the CPU."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from runtime.engines import Tensors, load
from runtime.engines.build import (
    TOLERANCES,
    compile_plan,
    parse,
    random_feeds,
    reference,
    relative_error,
)
from runtime.engines.cuda import Cuda
from runtime.engines.plan_cache import Recipe
from runtime.engines.tensorrt_api import is_rtx
from runtime.engines.trt import TrtEngine
from runtime.policy.graphs import PolicyGraphs
from tests.conftest import REPOSITORY
from v2a.bundle import Bundle, load_bundle
from v2a.cli import cli
from v2a.clock import MonotonicClock

BUNDLE = REPOSITORY / "demo" / "bundle"
GRAPHS = [graph.name for graph in load_bundle(BUNDLE).manifest.graphs]

Open = Callable[[str], TrtEngine]


@pytest.fixture(scope="module")
def plans(trt: Any, demo: Bundle) -> Callable[[str], bytes]:
    made: dict[str, bytes] = {}

    def plan(name: str) -> bytes:
        if name not in made:
            network = parse(trt, demo.graph(name), demo.graph_path(name))
            made[name] = bytes(compile_plan(network, Recipe())[0])
        return made[name]

    return plan


@pytest.fixture
def engines(trt: Any, cuda: Cuda, demo: Bundle, plans: Callable[[str], bytes]) -> Iterator[Open]:
    opened: list[TrtEngine] = []

    def engine(name: str) -> TrtEngine:
        opened.append(TrtEngine(demo.graph(name), plans(name), trt, cuda))
        return opened[-1]

    yield engine
    for each in opened:
        each.close()


def assert_same(name: str, found: Tensors, demo: Bundle) -> None:
    wanted = reference(demo.graph(name), demo.graph_path(name))
    assert wanted is not None
    for tensor, array in wanted.items():
        assert relative_error(found[tensor], array) <= TOLERANCES["fp32"], (name, tensor)


@pytest.mark.parametrize("name", GRAPHS)
def test_a_graph_computes_what_onnx_runtime_does(name: str, engines: Open, demo: Bundle) -> None:
    engine = engines(name)
    feeds = random_feeds(demo.graph(name).inputs)
    first = engine.run(feeds)
    assert_same(name, first, demo)
    assert engine.gpu_ms() > 0
    for tensor, array in engine.run(feeds).items():
        np.testing.assert_array_equal(array, first[tensor])


def test_runs_are_cuda_graphs(engines: Open) -> None:
    assert {name: engines(name).captured for name in GRAPHS} == dict.fromkeys(GRAPHS, True)


def test_the_inspector_speaks(engines: Open) -> None:
    assert json.loads(engines("observe").inspected())["Layers"]


def test_a_frozen_input_is_on_the_gpu_still(engines: Open, demo: Bundle) -> None:
    engine = engines("denoise")
    feeds = random_feeds(demo.graph("denoise").inputs)
    for array in feeds.values():
        array.setflags(write=False)
    wanted = engine.run(feeds)["chunk_rad"]
    other = {**feeds, "noise": feeds["noise"] + 1}
    assert not np.array_equal(engine.run(other)["chunk_rad"], wanted)
    np.testing.assert_array_equal(engine.run(feeds)["chunk_rad"], wanted)


def test_two_systems_on_two_threads_do_not_disturb_each_other(engines: Open, demo: Bundle) -> None:
    names = ("denoise", "vdm_motion")
    both = {name: engines(name) for name in names}
    feeds = {name: random_feeds(demo.graph(name).inputs) for name in names}
    wanted = {name: both[name].run(feeds[name]) for name in names}
    faults: list[str] = []

    def work(name: str) -> None:
        for _ in range(50):
            for tensor, array in both[name].run(feeds[name]).items():
                if not np.array_equal(array, wanted[name][tensor]):
                    faults.append(f"{name}: {tensor}")

    threads = [threading.Thread(target=work, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []


def test_v2a_build_keeps_plans_that_the_runtime_then_loads(
    trt: Any, demo: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    engine = "rtx" if is_rtx(trt) else "trt"
    command = ["build", str(BUNDLE), "--engine", engine, "--json"]
    for cached in (False, True):
        result = CliRunner().invoke(cli, command)
        assert result.exit_code == 0, result.output
        rows = json.loads(result.stdout)["graphs"]
        assert {name: row["cached"] for name, row in rows.items()} == dict.fromkeys(GRAPHS, cached)
    graphs = PolicyGraphs(demo, MonotonicClock(), partial(load, backend=engine))
    graphs.warm()
    graphs.close()
