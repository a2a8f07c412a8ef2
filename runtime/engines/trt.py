"""Runs plans with TensorRT or TensorRT-RTX, each as one CUDA graph with its own buffers.

System 1's graphs run on high-priority streams, System 2's on low-priority streams. A GPU switches
streams when a kernel ends, so System 1 waits for one kernel of System 2, not for a whole graph. At
the latest it starts between two of System 2's five launches (two VAE, two video DiT, condition).
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import (
    Engine,
    LayerTime,
    Signature,
    Tensors,
    check_signature,
    check_tensor,
)
from runtime.engines.cuda import Bytes, Cuda, open_cuda
from runtime.engines.plan_cache import PlanCache, machine_of
from runtime.engines.tensorrt_api import (
    LayerProfile,
    first_error,
    make_layer_profile,
    make_log,
    open_tensorrt,
    title,
)
from v2a.bundle import GraphSpec, TensorSpec
from v2a.errors import EngineError

# TensorRT's name of an element type -> the manifest's.
DTYPES = {"FLOAT": "float32", "HALF": "float16", "UINT8": "uint8", "INT64": "int64"}

PATIENT_RATES = ("system2",)
"""Graphs at these rates give way to all others on the GPU."""


def load_trt(graph: GraphSpec, path: Path, threads: int = 1) -> TrtEngine:
    """Load the plan that `v2a build` made of `graph` on this machine with TensorRT.

    Raises EngineError if the cache has no such plan.
    """
    return _from_cache(graph, "trt")


def load_rtx(graph: GraphSpec, path: Path, threads: int = 1) -> TrtEngine:
    """Load the plan of `graph` with TensorRT-RTX, for desktop GPUs; see `load_trt`."""
    return _from_cache(graph, "rtx")


def _from_cache(graph: GraphSpec, flavour: str) -> TrtEngine:
    trt, cuda = open_tensorrt(flavour), open_cuda()
    plan = PlanCache().newest(graph, machine_of(flavour, trt.__version__, cuda.gpu))
    return TrtEngine(graph, plan, trt, cuda)


class TrtEngine(Engine):
    """One graph. A run copies the changed inputs to the GPU, launches, copies back and waits.

    Outputs are new read-only arrays. A read-only input that was fed to the last run is still on
    the GPU and is not copied again. So System 1 copies System 2's K/V, its largest inputs, once per
    condition.

    `captured` says whether a run is one CUDA graph. Otherwise kernels are launched one by one.
    """

    def __init__(self, graph: GraphSpec, plan: bytes, trt: Any, cuda: Cuda) -> None:
        self._graph = graph
        self._fed: Tensors = {}
        with ExitStack() as opened:
            self._plan = opened.enter_context(closing(_Plan(graph, plan, trt)))
            check_signature(graph, self._plan.signatures("INPUT"), self._plan.signatures("OUTPUT"))
            self._buffers = {
                spec.name: opened.enter_context(closing(cuda.buffer(_nbytes(spec))))
                for spec in (*graph.inputs, *graph.outputs)
            }
            self._queue = opened.enter_context(
                closing(cuda.queue(urgent=graph.rate not in PATIENT_RATES))
            )
            opened.callback(self._queue.synchronize)  # a buffer in use must not be freed
            self.captured = self._prepare()
            self._closing = opened.pop_all()
        self._closed = False

    def _prepare(self) -> bool:
        """Run once on zeros, then capture: a context's first enqueue may allocate memory."""
        for name, buffer in self._buffers.items():
            self._plan.bind(name, buffer.address)
        for spec in self._graph.inputs:
            self._buffers[spec.name].host.fill(0)
            self._queue.upload(self._buffers[spec.name])
        plan, handle = self._plan, self._queue.handle
        plan.enqueue(handle)
        self._queue.synchronize()
        return self._queue.capture(lambda: plan.enqueue(handle))

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """See `Engine.run`; outputs are read-only.

        Raises EngineError on a wrong shape or dtype, a CUDA fault or a closed engine.
        """
        if self._closed:
            raise EngineError(f"graph {self._graph.name}: the engine is closed; load it again")
        for spec in self._graph.inputs:
            check_tensor(self._graph.name, spec, feeds.get(spec.name))
        try:
            self._run(feeds)
        except EngineError as fault:
            raise EngineError(f"graph {self._graph.name}: {fault}") from fault
        return {
            spec.name: _frozen_copy(spec, self._buffers[spec.name].host)
            for spec in self._graph.outputs
        }

    def _run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> None:
        there, self._fed = self._fed, {}  # after a fault the GPU's content is unknown
        names = [spec.name for spec in self._graph.inputs]
        for spec in self._graph.inputs:
            array = feeds[spec.name]
            if array is not there.get(spec.name):
                buffer = self._buffers[spec.name]
                np.copyto(_view(spec, buffer.host), array)
                self._queue.upload(buffer)
        self._queue.launch()
        for spec in self._graph.outputs:
            self._queue.download(self._buffers[spec.name])
        self._queue.synchronize()
        self._fed = {name: feeds[name] for name in names if _is_frozen(feeds[name])}

    def gpu_ms(self) -> float:
        """Return the GPU time of the last run in ms, by CUDA events, without copies."""
        return self._queue.gpu_ms()

    def layer_times(self, feeds: Mapping[str, npt.NDArray[Any]], runs: int) -> list[LayerTime]:
        """See `TimesLayers`; feeds as for `run`, in their specs' shapes.

        TensorRT's profiler times the layers without the CUDA graph, which reports none. It stays
        on for the rest of this engine's life.
        """
        self.run(feeds)
        profile = self._plan.profile()
        for _ in range(runs):
            self._plan.enqueue(self._queue.handle)
            self._queue.synchronize()
        return [LayerTime(name, "layer", ms / runs) for name, ms in profile.total_ms.items()]

    def inspected(self) -> str:
        """Return the engine inspector's JSON, which describes the layers as built."""
        return self._plan.inspected()

    def close(self) -> None:
        """Free everything. The engine can't run afterwards; a second call does nothing."""
        self._closed = True
        self._fed = {}
        self._closing.close()


# TensorRT-RTX 1.7.1 on an H200 (SM90): it compiles a plan there, and can't load it.
_NO_KERNELS = "does not support this compute capability"


class _Plan:
    """A deserialised plan and its context. TensorRT needs its objects freed newest first."""

    def __init__(self, graph: GraphSpec, plan: bytes, trt: Any) -> None:
        self._trt = trt
        self._log = make_log(trt)
        self._runtime: Any = trt.Runtime(self._log)
        self._engine: Any = self._runtime.deserialize_cuda_engine(plan)
        self._context: Any = (
            None if self._engine is None else self._engine.create_execution_context()
        )
        if self._context is None:
            self.close()
            reason = first_error(self._log)
            fix = "run `v2a build` on this machine again"
            if _NO_KERNELS in reason:
                fix = "take another engine for this GPU, `--engine trt` or `--engine ort`"
            raise EngineError(
                f"graph {graph.name}: {title(trt)} can't load its plan ({reason}); {fix}"
            )

    def signatures(self, mode: str) -> list[Signature]:
        engine = self._engine
        names = [engine.get_tensor_name(index) for index in range(engine.num_io_tensors)]
        return [
            (name, DTYPES.get(dtype, dtype), tuple(engine.get_tensor_shape(name)))
            for name in names
            if engine.get_tensor_mode(name).name == mode
            for dtype in (engine.get_tensor_dtype(name).name,)
        ]

    def bind(self, name: str, address: int) -> None:
        if not self._context.set_tensor_address(name, address):
            raise EngineError(f"TensorRT refused a buffer for {name}: {first_error(self._log)}")

    def enqueue(self, stream: int) -> None:
        self._log.errors.clear()
        if not self._context.execute_async_v3(stream):
            raise EngineError(
                f"TensorRT refused to run ({first_error(self._log)}); run `v2a build` again"
            )

    def profile(self) -> LayerProfile:
        """Return a profile that collects the layer times of each later run.

        With a profiler set, `execute_async_v3` waits for its work and reports it (TensorRT Python
        API, enqueue_emits_profile, on by default).
        """
        self._profile = make_layer_profile(self._trt)
        self._context.profiler = self._profile  # TensorRT keeps only a pointer to it
        return self._profile

    def inspected(self) -> str:
        inspector = self._engine.create_engine_inspector()
        text: str = inspector.get_engine_information(self._trt.LayerInformationFormat.JSON)
        return text

    def close(self) -> None:
        self._context = None
        self._engine = None
        self._runtime = None


def _nbytes(spec: TensorSpec) -> int:
    return int(np.prod(spec.shape)) * np.dtype(spec.dtype).itemsize


def _view(spec: TensorSpec, host: Bytes) -> npt.NDArray[Any]:
    """View the buffer's bytes in the shape and dtype of `spec`."""
    array: npt.NDArray[Any] = host.view(spec.dtype).reshape(spec.shape)
    return array


def _frozen_copy(spec: TensorSpec, host: Bytes) -> npt.NDArray[Any]:
    array = _view(spec, host).copy()
    array.setflags(write=False)
    return array


def _is_frozen(array: npt.NDArray[Any]) -> bool:
    """Whether the array cannot have changed: it is read-only and no view of a writable array."""
    return array.base is None and not array.flags.writeable
