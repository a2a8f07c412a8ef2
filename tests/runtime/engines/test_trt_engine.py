"""The TensorRT engine on a fake CUDA: what it computes, in which order, and what it leaves."""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from runtime.engines import load
from runtime.engines.cuda import Cuda, open_cuda
from runtime.engines.cuda_bindings import CudaBindings
from runtime.engines.plan_cache import PlanCache, PlanKey, machine_of
from runtime.engines.pycuda import PyCuda
from runtime.engines.trt import TrtEngine
from tests.conftest import REPOSITORY
from tests.runtime.engines.fake_cuda import FakePyCuda, FakeRuntime
from tests.runtime.engines.fake_tensorrt import PLAN, FakeTensorRt
from tests.runtime.engines.plan_checks import good
from v2a.bundle import GraphSpec
from v2a.cli import cli
from v2a.errors import BundleError, EngineError

Arrays = Mapping[str, npt.NDArray[Any]]


def graph(rate: str = "denoise") -> GraphSpec:
    def tensor(name: str, dtype: str, shape: list[int]) -> dict[str, Any]:
        return {"name": name, "dtype": dtype, "shape": shape, "meaning": "test"}

    return GraphSpec.model_validate(
        {
            "name": "denoise",
            "rate": rate,
            "file": "denoise.onnx",
            "sha256": "a" * 64,
            "inputs": [tensor("kv", "float32", [2, 3]), tensor("image", "uint8", [1, 3])],
            "outputs": [tensor("sum", "float32", [2, 3]), tensor("half", "float16", [1])],
        }
    )


def compute(feeds: Arrays) -> Arrays:
    total = feeds["kv"] + feeds["image"].astype(np.float32)
    return {"sum": total, "half": (total.mean() / 100).astype(np.float16)}


def feeds(value: float = 1.0) -> dict[str, npt.NDArray[Any]]:
    return {
        "kv": np.full((2, 3), value, np.float32),
        "image": np.array([[1, 2, 255]], np.uint8),
    }


def frozen(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    array.setflags(write=False)
    return array


@pytest.fixture
def rt() -> FakeRuntime:
    return FakeRuntime()


@pytest.fixture
def install(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Any], None]:
    def put(name: str, module: Any) -> None:
        parent = name.rpartition(".")[0]
        monkeypatch.setitem(sys.modules, parent, ModuleType(parent))
        monkeypatch.setitem(sys.modules, name, module)

    return put


@pytest.fixture
def cuda(rt: FakeRuntime, install: Callable[[str, Any], None]) -> Cuda:
    install("cuda.bindings.runtime", rt)
    return CudaBindings()


@pytest.fixture(params=["cuda-bindings", "pycuda"])
def either(
    request: pytest.FixtureRequest, rt: FakeRuntime, install: Callable[[str, Any], None]
) -> Cuda:
    install("cuda.bindings.runtime", rt)
    install("pycuda.driver", FakePyCuda(rt))
    return CudaBindings() if request.param == "cuda-bindings" else PyCuda()


def open_engine(rt: FakeRuntime, cuda: Cuda, refuse: str = "", rate: str = "denoise") -> TrtEngine:
    return TrtEngine(graph(rate), PLAN, FakeTensorRt(rt, graph(rate), compute, refuse), cuda)


def assert_computes(engine: TrtEngine, fed: Arrays) -> None:
    outputs = engine.run(fed)
    for name, wanted in compute(fed).items():
        np.testing.assert_array_equal(outputs[name].reshape(-1), wanted.reshape(-1))


@pytest.mark.parametrize("integrated", [False, True])
def test_it_computes_and_frees_all_of_it_once(
    rt: FakeRuntime, install: Callable[[str, Any], None], either: Cuda, integrated: bool
) -> None:
    rt.integrated = integrated
    cuda = type(either)()
    before = rt.alive()
    with open_engine(rt, cuda) as engine:
        for value in (1.0, -2.5, 1e5):
            assert_computes(engine, feeds(value))
        assert engine.gpu_ms() == 3.0
        assert rt.alive() > before
    assert rt.alive() == before
    frees = len(rt.calls)
    engine.close()
    assert len(rt.calls) == frees


def test_layer_times_are_tensorrt_s_own(rt: FakeRuntime, cuda: Cuda) -> None:
    trt = FakeTensorRt(rt, graph(), compute)
    trt.layers = [{"Name": "core.blocks.0.kv/MatMul"}, {"Name": "core.out/MatMul_1"}]
    with TrtEngine(graph(), PLAN, trt, cuda) as engine:
        captured = trt.enqueued
        layers = engine.layer_times(feeds(), runs=4)
        # Not the captured graph, which TensorRT's profiler does not see.
        assert trt.enqueued == captured + 4
    assert layers == [
        ("core.blocks.0.kv/MatMul", "layer", 1.5),
        ("core.out/MatMul_1", "layer", 1.5),
    ]


def test_pycuda_leaves_no_context_behind(
    rt: FakeRuntime, install: Callable[[str, Any], None]
) -> None:
    driver = FakePyCuda(rt)
    install("pycuda.driver", driver)
    with open_engine(rt, PyCuda()) as engine:
        assert not engine.captured
        assert driver.pushed == 0
        rt.fail_at = len(rt.calls)
        with pytest.raises(EngineError, match=r"graph denoise: CUDA: .*cudaErrorLaunchFailure"):
            engine.run(feeds())
        assert driver.pushed == 0


def test_a_run_copies_in_launches_copies_out_and_waits(rt: FakeRuntime, cuda: Cuda) -> None:
    with open_engine(rt, cuda) as engine:
        begin = len(rt.calls)
        engine.run(feeds())
        assert rt.calls[begin:] == [
            "cudaMemcpyAsync", "cudaMemcpyAsync",
            "cudaEventRecord", "cudaGraphLaunch", "cudaEventRecord",
            "cudaMemcpyAsync", "cudaMemcpyAsync",
            "cudaStreamSynchronize",
        ]  # fmt: skip


def test_zero_copy_where_cpu_and_gpu_share_a_memory(
    rt: FakeRuntime, install: Callable[[str, Any], None]
) -> None:
    rt.integrated = True
    install("cuda.bindings.runtime", rt)
    with open_engine(rt, CudaBindings()) as engine:
        assert_computes(engine, feeds())
        assert "cudaMemcpyAsync" not in rt.calls
        assert "cudaMalloc" not in rt.calls


def test_the_graph_is_captured_once_after_a_warm_up(rt: FakeRuntime, cuda: Cuda) -> None:
    trt = FakeTensorRt(rt, graph(), compute)
    with TrtEngine(graph(), PLAN, trt, cuda) as engine:
        for _ in range(5):
            engine.run(feeds())
        assert engine.captured
    assert rt.calls.count("cudaStreamBeginCapture") == 1
    assert rt.calls.count("cudaGraphLaunch") == 5
    assert trt.enqueued == 2  # the warm-up and the recording
    assert rt.calls.index("cudaStreamSynchronize") < rt.calls.index("cudaStreamBeginCapture")


def test_what_can_not_be_captured_runs_without_a_graph(rt: FakeRuntime, cuda: Cuda) -> None:
    with open_engine(rt, cuda, refuse="capture") as engine:
        assert not engine.captured
        assert_computes(engine, feeds(4.0))
        assert not rt.graphs
        assert "cudaGraphLaunch" not in rt.calls
    assert rt.alive() == 0


def test_outputs_are_new_arrays_that_nobody_can_write_to(rt: FakeRuntime, cuda: Cuda) -> None:
    with open_engine(rt, cuda) as engine:
        first = engine.run(feeds(1.0))["sum"]
        engine.run(feeds(2.0))
    np.testing.assert_array_equal(first, compute(feeds(1.0))["sum"])
    with pytest.raises(ValueError, match="read-only"):
        first[...] = 0


def test_a_frozen_array_fed_again_is_not_copied_again(rt: FakeRuntime, cuda: Cuda) -> None:
    with open_engine(rt, cuda) as engine:
        fed = {**feeds(), "kv": frozen(np.ones((2, 3), np.float32))}
        copies = []
        for _ in range(3):
            begin = len(rt.calls)
            assert_computes(engine, fed)
            copies.append(rt.calls[begin:].count("cudaMemcpyAsync"))
        assert copies == [4, 3, 3]


def test_after_a_fault_everything_is_copied_again(rt: FakeRuntime, cuda: Cuda) -> None:
    with open_engine(rt, cuda) as engine:
        fed = {name: frozen(array) for name, array in feeds().items()}
        assert_computes(engine, fed)
        rt.fail_at = len(rt.calls)
        with pytest.raises(EngineError, match="graph denoise: CUDA error 719"):
            engine.run(fed)
        rt.fail_at = None
        begin = len(rt.calls)
        assert_computes(engine, fed)
        assert rt.calls[begin:].count("cudaMemcpyAsync") == 4


@given(
    st.lists(
        st.tuples(st.sampled_from(["new", "same", "frozen", "same view", "written"]), st.floats(
            -1e3, 1e3, width=32)), max_size=12)
)  # fmt: skip
def test_no_history_of_feeds_is_ever_stale(history: list[tuple[str, float]]) -> None:
    rt = FakeRuntime()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "cuda.bindings.runtime", rt)
        engine = open_engine(rt, CudaBindings())
    fed = feeds()
    for how, value in history:
        if how == "new":
            fed = feeds(value)
        elif how == "frozen":
            fed = {name: frozen(array) for name, array in feeds(value).items()}
        elif how == "same view":  # read-only, but what it looks at is not
            below = np.full((2, 3), value, np.float32)
            fed = {**fed, "kv": frozen(below[:])}
            assert_computes(engine, fed)
            below += 1
        elif how == "written" and fed["kv"].flags.writeable:
            fed["kv"][...] = value
        assert_computes(engine, fed)
    engine.close()
    assert rt.alive() == 0


def test_system_1_is_urgent_and_system_2_is_not(rt: FakeRuntime, cuda: Cuda) -> None:
    priorities = {}
    for rate in ("instruction", "frame", "system2", "observe", "denoise"):
        with open_engine(rt, cuda, rate=rate):
            (stream,) = rt.streams.values()
            priorities[rate] = stream.priority
    assert priorities.pop("system2") == 0
    assert set(priorities.values()) == {-5}  # CUDA: the lower the number, the more urgent


def test_every_cuda_call_of_loading_may_fail_and_nothing_is_left(
    rt: FakeRuntime, cuda: Cuda
) -> None:
    first = len(rt.calls)
    with open_engine(rt, cuda):
        last = len(rt.calls)
    failed = []
    for offset in range(last - first):
        rt.fail_at = len(rt.calls) + offset
        name = rt.calls[first + offset]
        if name == "cudaStreamEndCapture":  # the one that an engine can do without
            with open_engine(rt, cuda) as engine:
                assert not engine.captured
        else:
            with pytest.raises(EngineError, match="CUDA error 719: cudaErrorLaunchFailure; "):
                open_engine(rt, cuda)
        assert rt.calls[rt.fail_at] == name
        assert rt.alive() == 0, name
        failed.append(name)
    assert {"cudaHostAlloc", "cudaMalloc", "cudaGraphInstantiate", "cudaEventCreate"} <= set(failed)


def test_every_cuda_call_of_closing_may_fail_and_the_rest_is_freed(
    rt: FakeRuntime, cuda: Cuda
) -> None:
    engine = open_engine(rt, cuda)
    before = len(rt.calls)
    engine.close()
    for offset in range(len(rt.calls) - before):
        engine = open_engine(rt, cuda)
        rt.fail_at = len(rt.calls) + offset
        with pytest.raises(EngineError, match="CUDA error 719"):
            engine.close()
        assert rt.alive() == 0


def test_every_cuda_call_of_a_run_may_fail_and_close_still_frees(
    rt: FakeRuntime, cuda: Cuda
) -> None:
    for offset in range(8):
        engine = open_engine(rt, cuda)
        rt.fail_at = len(rt.calls) + offset
        with pytest.raises(EngineError, match="graph denoise: CUDA error 719"):
            engine.run(feeds())
        rt.fail_at = None
        engine.close()
        assert rt.alive() == 0


@pytest.mark.parametrize(
    ("refuse", "message"),
    [
        ("deserialize", r"can't load its plan \(magic tag does not match\); run `v2a build`"),
        ("kernels", "compute capability 9.0.*; take another engine for this GPU, `--engine trt`"),
        ("context", r"TensorRT 10.3.0 can't load its plan"),
        ("bind", "refused a buffer for kv"),
        ("enqueue", r"refused to run \(no kernel image is available\); run `v2a build` again"),
    ],
)
def test_what_tensorrt_refuses_is_one_line_and_leaves_nothing(
    rt: FakeRuntime, cuda: Cuda, refuse: str, message: str
) -> None:
    trt = FakeTensorRt(rt, graph(), compute, refuse)
    with pytest.raises(EngineError, match=message) as refusal:
        TrtEngine(graph(), PLAN, trt, cuda)
    assert "\n" not in str(refusal.value)
    assert rt.alive() == 0
    del refusal
    gc.collect()
    made = ["context", "engine", "runtime"]
    assert [name for name in trt.ended if name in made] == [n for n in made if n in trt.ended]
    assert "runtime" in trt.ended


def test_tensorrt_objects_end_in_the_reverse_order(rt: FakeRuntime, cuda: Cuda) -> None:
    trt = FakeTensorRt(rt, graph(), compute)
    engine = TrtEngine(graph(), PLAN, trt, cuda)
    assert trt.ended == []
    engine.close()
    assert trt.ended == ["context", "engine", "runtime"]


def test_a_closed_engine_says_so(rt: FakeRuntime, cuda: Cuda) -> None:
    engine = open_engine(rt, cuda)
    engine.close()
    with pytest.raises(EngineError, match="graph denoise: the engine is closed"):
        engine.run(feeds())


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kv": None}, r"kv is nothing, wanted float32\[2, 3\]"),
        ({"kv": np.ones((2, 3))}, r"kv is float64\[2, 3\], wanted float32"),
        ({"kv": np.ones((1, 3), np.float32)}, r"kv is float32\[1, 3\], wanted float32\[2, 3\]"),
    ],
)
def test_feeds_are_not_cast_or_broadcast(
    rt: FakeRuntime, cuda: Cuda, wrong: dict[str, Any], message: str
) -> None:
    with open_engine(rt, cuda) as engine, pytest.raises(EngineError, match=message):
        engine.run({name: a for name, a in {**feeds(), **wrong}.items() if a is not None})


def test_a_plan_of_another_graph_is_refused(rt: FakeRuntime, cuda: Cuda) -> None:
    other = graph().model_copy(update={"inputs": graph().inputs[:1]})
    with pytest.raises(BundleError, match=r"manifest names the inputs \['kv'\]"):
        TrtEngine(other, PLAN, FakeTensorRt(rt, graph(), compute), cuda)
    assert rt.alive() == 0


def test_load_takes_the_plan_from_the_cache_or_says_what_to_run(
    rt: FakeRuntime,
    cuda: Cuda,
    install: Callable[[str, Any], None],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    trt = FakeTensorRt(rt, graph(), compute)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    with pytest.raises(EngineError, match="no plan for this machine; run: v2a build BUNDLE"):
        load(graph(), Path("denoise.onnx"), "trt")
    machine = machine_of("trt", trt.__version__, cuda.gpu)
    elsewhere = PlanKey("a" * 64, "fp32", replace(machine, tensorrt="10.7.0", sm=72))
    PlanCache().store(elsewhere, PLAN, {}, good)
    with pytest.raises(EngineError, match=r"one for tensorrt 10.7.0, here 10.3.0; sm 72, here 87"):
        load(graph(), Path("denoise.onnx"), "trt")
    PlanCache().store(PlanKey("a" * 64, "fp32", machine), PLAN, {}, good)
    with load(graph(), Path("denoise.onnx"), "trt") as engine:
        np.testing.assert_array_equal(engine.run(feeds())["sum"], compute(feeds())["sum"])


def test_v2a_run_takes_the_engine_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    demo = REPOSITORY / "demo"
    arguments = [demo / "robot.yaml", "--bundle", demo / "bundle", "--dry-run", "--engine", "trt"]
    camera = ["--camera", f"socket:{tmp_path}/camera", "--record", tmp_path / "run"]
    result = CliRunner().invoke(cli, ["run", *map(str, [*arguments, *camera])])
    assert result.exit_code == 4
    assert result.stderr.startswith("error: TensorRT can't be imported (")


def test_without_any_cuda_package_the_extras_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("cuda.bindings", "pycuda"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EngineError, match=r"no CUDA for Python .*pip install .*\[jetson\]"):
        open_cuda()


def test_cuda_bindings_go_before_pycuda(
    rt: FakeRuntime, install: Callable[[str, Any], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    install("cuda.bindings.runtime", rt)
    install("pycuda.driver", FakePyCuda(rt))
    assert isinstance(open_cuda(), CudaBindings)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    assert isinstance(open_cuda(), PyCuda)
    assert open_cuda().gpu.name == "Fake"


@pytest.mark.parametrize("fault", [ImportError, OSError])
@pytest.mark.parametrize(
    ("backend", "fix"), [("trt", "--system-site-packages"), ("rtx", r"\[validate\]")]
)
def test_a_tensorrt_that_can_not_be_imported_is_one_line(
    monkeypatch: pytest.MonkeyPatch, fault: type[Exception], backend: str, fix: str
) -> None:
    def fail(name: str) -> ModuleType:
        raise fault("libnvdla_compiler.so: cannot open shared object file")

    monkeypatch.setattr("runtime.engines.tensorrt_api.import_module", fail)
    with pytest.raises(EngineError, match=f"can't be imported .libnvdla.*{fix}"):
        load(graph(), Path("denoise.onnx"), backend)
