"""What needs an NVIDIA GPU. `make test-gpu` runs all of it; without a GPU each test says so."""

from __future__ import annotations

from typing import Any

import pytest

from runtime.engines.build import compile_plan, parse
from runtime.engines.cuda import Cuda, open_cuda
from runtime.engines.cuda_bindings import CudaBindings
from runtime.engines.plan_cache import Recipe
from runtime.engines.tensorrt_api import FLAVOURS, is_rtx, open_tensorrt
from runtime.engines.trt import TrtEngine
from tests.conftest import REPOSITORY
from v2a.bundle import Bundle, load_bundle
from v2a.errors import EngineError


def no_gpu() -> str:
    """Why there is no GPU for these tests, or nothing where there is one."""
    try:
        open_cuda()
    except EngineError as fault:
        return str(fault)
    except ModuleNotFoundError as fault:
        return str(fault)
    return ""


REASON = no_gpu()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if REASON:
        for item in items:
            if "tests/gpu/" in item.path.as_posix():
                item.add_marker(pytest.mark.skip(reason=f"no GPU: {REASON}"))


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if REASON:
        terminalreporter.write_line(f"tests/gpu: NOTHING RAN ON A GPU: {REASON}", yellow=True)


@pytest.fixture(scope="session")
def cuda() -> Cuda:
    """The GPU by cuda-bindings."""
    pytest.importorskip("cuda.bindings.runtime", reason="cuda-bindings is not installed")
    return CudaBindings()


@pytest.fixture(scope="session")
def demo() -> Bundle:
    return load_bundle(REPOSITORY / "demo" / "bundle")


@pytest.fixture(scope="session", params=list(FLAVOURS))
def trt(request: pytest.FixtureRequest, cuda: Cuda, demo: Bundle) -> Any:
    """TensorRT and TensorRT-RTX, each where it is installed and has kernels for the GPU."""
    try:
        module = open_tensorrt(request.param)
    except EngineError as fault:
        pytest.skip(str(fault))
    if is_rtx(module) and not hasattr(module.ComputeCapability, f"SM{cuda.gpu.sm}"):
        smallest = demo.graph("vae_spatial")
        network = parse(module, smallest, demo.graph_path("vae_spatial"))
        try:
            # Seen on SM90: RTX 1.7.1 compiles a plan for this GPU and then refuses to load it.
            TrtEngine(smallest, bytes(compile_plan(network, Recipe())[0]), module, cuda).close()
        except EngineError as fault:
            pytest.skip(f"TensorRT-RTX does not list SM{cuda.gpu.sm}: {fault}")
    return module
