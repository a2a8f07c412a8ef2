"""A TensorRT that builds and runs one graph, given as a Python function, on the fake CUDA."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from tests.runtime.engines.fake_cuda import FakeRuntime
from v2a.bundle import GraphSpec, TensorSpec

Function = Callable[[Mapping[str, npt.NDArray[Any]]], Mapping[str, npt.NDArray[Any]]]
NAMES = {"float32": "FLOAT", "float16": "HALF", "uint8": "UINT8", "int64": "INT64"}
PLAN = b"plan of the fake"


class _Logger:
    INTERNAL_ERROR, ERROR, WARNING = "internal", "error", "warning"


class _Profiler:
    pass


class _Flag(IntEnum):
    STRONGLY_TYPED = 1


class FakeTensorRt:
    """Stands in for the module `tensorrt`.

    `refuse` names the one step that fails: deserialize, kernels (none for this GPU), context, bind,
    enqueue, capture, build.
    `ended` gets the name of each object as Python drops it.
    """

    __name__ = "tensorrt"
    __version__ = "10.3.0"
    ILogger = _Logger
    IProfiler = _Profiler
    NetworkDefinitionCreationFlag = _Flag
    BuilderFlag = SimpleNamespace(TF32="tf32")
    MemoryPoolType = SimpleNamespace(WORKSPACE="workspace")
    ProfilingVerbosity = SimpleNamespace(DETAILED="detailed")
    LayerInformationFormat = SimpleNamespace(JSON="json")

    def __init__(
        self, rt: FakeRuntime, graph: GraphSpec, function: Function, refuse: str = ""
    ) -> None:
        self.rt, self.graph, self.function, self.refuse = rt, graph, function, refuse
        self.ended: list[str] = []
        self.enqueued = 0
        self.builds: list[_Config] = []
        self.layers: list[dict[str, Any]] = []  # what the engine inspector shows
        self.network: list[Any] = []  # what the parser finds

    def Runtime(self, log: Any) -> _Runtime:  # noqa: N802  TensorRT's names, here and below
        return _Runtime(self, log)

    def Builder(self, log: Any) -> _Builder:  # noqa: N802
        return _Builder(self, log)

    def OnnxParser(self, network: Any, log: Any) -> SimpleNamespace:  # noqa: N802
        return SimpleNamespace(parse=lambda model, path=None: True)


class _Ends:
    def __init__(self, trt: FakeTensorRt) -> None:
        self.trt = trt

    def __del__(self) -> None:
        self.trt.ended.append(type(self).__name__.strip("_").lower())


class _Runtime(_Ends):
    def __init__(self, trt: FakeTensorRt, log: Any) -> None:
        super().__init__(trt)
        self.log = log

    def deserialize_cuda_engine(self, plan: bytes) -> _Engine | None:
        if self.trt.refuse == "deserialize" or plan != PLAN:
            self.log.log("error", "magic tag does not match\nsecond line")
            return None
        if self.trt.refuse == "kernels":  # TensorRT-RTX 1.7.1 on an H200
            self.log.log(
                "error",
                "IRuntime::deserializeCudaEngine: Error Code 6: API Usage Error (The engine cannot "
                "run on this GPU, which has compute capability 9.0. Supported compute "
                "capabilities: 8.0 8.6 8.9 12.0 12.1 >12.0. TensorRT-RTX does not support this "
                "compute capability, so the engine cannot be rebuilt for it.)",
            )
            return None
        return _Engine(self.trt, self.log)


class _Engine(_Ends):
    def __init__(self, trt: FakeTensorRt, log: Any) -> None:
        super().__init__(trt)
        self.log = log
        self.specs = [*trt.graph.inputs, *trt.graph.outputs]
        self.num_io_tensors = len(self.specs)

    def create_execution_context(self) -> _Context | None:
        return None if self.trt.refuse == "context" else _Context(self.trt, self.log)

    def get_tensor_name(self, index: int) -> str:
        return self.specs[index].name

    def _spec(self, name: str) -> TensorSpec:
        return next(spec for spec in self.specs if spec.name == name)

    def get_tensor_mode(self, name: str) -> SimpleNamespace:
        inputs = [spec.name for spec in self.trt.graph.inputs]
        return SimpleNamespace(name="INPUT" if name in inputs else "OUTPUT")

    def get_tensor_dtype(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(name=NAMES[self._spec(name).dtype])

    def get_tensor_shape(self, name: str) -> list[int]:
        return self._spec(name).shape

    def create_engine_inspector(self) -> SimpleNamespace:
        text = json.dumps({"Layers": self.trt.layers})
        return SimpleNamespace(get_engine_information=lambda form: text)


class _Context(_Ends):
    def __init__(self, trt: FakeTensorRt, log: Any) -> None:
        super().__init__(trt)
        self.log = log
        self.addresses: dict[str, int] = {}
        self.profiler: Any = None

    def set_tensor_address(self, name: str, address: int) -> bool:
        self.addresses[name] = address
        return self.trt.refuse != "bind"

    def execute_async_v3(self, stream: int) -> bool:
        trt = self.trt
        trt.enqueued += 1
        capturing = trt.rt.capturing(stream)
        # TensorRT may allocate at a context's first enqueue, which no capture survives.
        if capturing and (trt.enqueued == 1 or trt.refuse == "capture"):
            trt.rt.spoil(stream)
        if trt.refuse == "enqueue":
            self.log.log("error", "no kernel image is available")
            return False
        if trt.rt.last_error:  # TensorRT asks for it after its launches, and takes it for its own
            self.log.log("error", trt.rt.last_error.name)
            return False
        trt.rt.enqueue(stream, self._compute)
        if self.profiler is not None:  # as with enqueue_emits_profile, which is on by default
            for layer in trt.layers:
                self.profiler.report_layer_time(layer["Name"], 1.5)
        return True

    def _compute(self) -> None:
        trt = self.trt
        results = trt.function({spec.name: self._tensor(spec) for spec in trt.graph.inputs})
        for spec in trt.graph.outputs:
            self._tensor(spec)[...] = results[spec.name]
        trt.rt.now_ms += 3.0

    def _tensor(self, spec: TensorSpec) -> npt.NDArray[Any]:
        memory = self.trt.rt.memory(self.addresses[spec.name])
        return memory.view(np.dtype(spec.dtype)).reshape(spec.shape)


class _Builder:
    def __init__(self, trt: FakeTensorRt, log: Any) -> None:
        self.trt, self.log = trt, log

    def create_network(self, flags: int) -> SimpleNamespace:
        assert flags == 1 << _Flag.STRONGLY_TYPED
        layers, graph = self.trt.network, self.trt.graph
        return SimpleNamespace(
            num_layers=len(layers),
            get_layer=layers.__getitem__,
            num_inputs=len(graph.inputs),
            get_input=[_tensor(spec) for spec in graph.inputs].__getitem__,
            num_outputs=len(graph.outputs),
            get_output=[_tensor(spec) for spec in graph.outputs].__getitem__,
        )

    def create_builder_config(self) -> _Config:
        return _Config()

    def build_serialized_network(self, network: Any, config: _Config) -> bytes | None:
        if self.trt.refuse == "build":
            self.log.log("error", "could not find any implementation for node conv1")
            return None
        self.trt.builds.append(config)
        return PLAN


def _tensor(spec: TensorSpec) -> SimpleNamespace:
    dtype = SimpleNamespace(name=NAMES[spec.dtype])
    return SimpleNamespace(name=spec.name, dtype=dtype, shape=spec.shape)


class _Config:
    """Takes any setting, as pybind objects with those attributes do."""

    def __init__(self) -> None:
        self.workspace_bytes = 0
        self.cleared: list[str] = []
        self.timings = b""
        self.builder_optimization_level = -1
        self.profiling_verbosity = ""

    def set_memory_pool_limit(self, pool: str, nbytes: int) -> None:
        self.workspace_bytes = nbytes

    def clear_flag(self, flag: str) -> None:
        self.cleared.append(flag)

    def create_timing_cache(self, timings: bytes) -> bytes:
        return timings

    def set_timing_cache(self, timings: bytes, ignore_mismatch: bool) -> bool:
        assert not ignore_mismatch
        self.timings = timings
        return timings in (b"", b"timings of the fake")

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: b"timings of the fake")
