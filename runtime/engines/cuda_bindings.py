"""NVIDIA's cuda-bindings behind the seam of `runtime.engines.cuda`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np

from runtime.engines.cuda import Buffer, Bytes, Gpu, Queue, driver_text
from v2a.errors import EngineError

# cudaError_t of the runtime API -> what to do.
_FIXES = {
    2: "close what else uses the GPU, or take a smaller policy or precision",  # MemoryAllocation
    35: "install an NVIDIA driver for this CUDA; on JetPack 6 take cuda-bindings 12",  # ...Driver
    100: "is there an NVIDIA GPU, and may this user open /dev/nvidia* ?",  # NoDevice
}


def checked(rt: Any, result: tuple[Any, ...]) -> Any:
    """What a call of the CUDA runtime gave after its error code, which is raised if it is one."""
    error, *values = result
    if error != rt.cudaError_t.cudaSuccess:
        rt.cudaGetLastError()  # told here, so the next call (TensorRT's own) must not see it
        text = rt.cudaGetErrorString(error)[1].decode()
        fix = _FIXES.get(int(error), "if it stays so, restart the process")
        raise EngineError(f"CUDA error {int(error)}: {text}; {fix}")
    return values[0] if len(values) == 1 else tuple(values)


class CudaBindings:
    """cuda-bindings, 12.6 or newer; its calls return an error code and what they gave."""

    def __init__(self) -> None:
        self._rt: Any = import_module("cuda.bindings.runtime")
        # A thread that waits for the GPU sleeps: spinning would take a core from the control loop.
        checked(self._rt, self._rt.cudaSetDeviceFlags(self._rt.cudaDeviceScheduleBlockingSync))
        properties = checked(self._rt, self._rt.cudaGetDeviceProperties(0))
        self.gpu = Gpu(
            name=properties.name.decode().rstrip("\0"),
            sm=10 * properties.major + properties.minor,
            integrated=bool(properties.integrated),
            cuda=checked(self._rt, self._rt.cudaDriverGetVersion()),
            driver=driver_text(),
        )

    def buffer(self, nbytes: int) -> Buffer:
        return _Buffer(self._rt, nbytes, mapped=self.gpu.integrated)

    def queue(self, urgent: bool) -> Queue:
        return _Queue(self._rt, urgent)


class _Buffer:
    def __init__(self, rt: Any, nbytes: int, mapped: bool) -> None:
        self.mapped = mapped
        with ExitStack() as opened:
            flags = rt.cudaHostAllocMapped if mapped else rt.cudaHostAllocDefault
            self.pointer = int(checked(rt, rt.cudaHostAlloc(nbytes, flags)))
            opened.callback(lambda: checked(rt, rt.cudaFreeHost(self.pointer)))
            if mapped:
                self.address = int(checked(rt, rt.cudaHostGetDevicePointer(self.pointer, 0)))
            else:
                self.address = int(checked(rt, rt.cudaMalloc(nbytes)))
                opened.callback(lambda: checked(rt, rt.cudaFree(self.address)))
            block = (ctypes.c_uint8 * nbytes).from_address(self.pointer)
            self.host: Bytes = np.ctypeslib.as_array(block)
            self._closing = opened.pop_all()

    def close(self) -> None:
        self.host = np.empty(0, np.uint8)
        self._closing.close()


class _Queue:
    def __init__(self, rt: Any, urgent: bool) -> None:
        self._rt = rt
        self._graph: Any = None
        with ExitStack() as opened:
            least, greatest = checked(rt, rt.cudaDeviceGetStreamPriorityRange())
            # Non-blocking: work on the default stream (a library's) must not order the two systems.
            self._stream = checked(
                rt,
                rt.cudaStreamCreateWithPriority(
                    rt.cudaStreamNonBlocking, greatest if urgent else least
                ),
            )
            opened.callback(lambda: checked(rt, rt.cudaStreamDestroy(self._stream)))
            self._start, self._end = self._event(opened), self._event(opened)
            self._closing = opened.pop_all()
        self.handle = int(self._stream)

    def _event(self, opened: ExitStack) -> Any:
        event = checked(self._rt, self._rt.cudaEventCreate())
        opened.callback(lambda: checked(self._rt, self._rt.cudaEventDestroy(event)))
        return event

    def upload(self, buffer: Buffer) -> None:
        self._copy(buffer, "cudaMemcpyHostToDevice")

    def download(self, buffer: Buffer) -> None:
        self._copy(buffer, "cudaMemcpyDeviceToHost")

    def _copy(self, buffer: Any, kind: str) -> None:
        if buffer.mapped:
            return
        pair = (buffer.address, buffer.pointer)
        to, source = pair if kind == "cudaMemcpyHostToDevice" else pair[::-1]
        direction = getattr(self._rt.cudaMemcpyKind, kind)
        checked(
            self._rt,
            self._rt.cudaMemcpyAsync(to, source, buffer.host.nbytes, direction, self._stream),
        )

    def capture(self, work: Callable[[], None]) -> bool:
        self._work = work
        rt = self._rt
        # Thread-local: what other threads do meanwhile does not spoil the recording.
        mode = rt.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(rt, rt.cudaStreamBeginCapture(self._stream, mode))
        try:
            work()
            graph = checked(rt, rt.cudaStreamEndCapture(self._stream))
        except EngineError:
            self._abandon_capture()
            return False
        try:
            launched = checked(rt, rt.cudaGraphInstantiate(graph, 0))
            self._closing.callback(lambda: checked(rt, rt.cudaGraphExecDestroy(launched)))
        finally:
            checked(rt, rt.cudaGraphDestroy(graph))
        self._graph = launched
        return True

    def _abandon_capture(self) -> None:
        """Leave the stream as it was: a capture that failed has to be ended all the same."""
        error, graph = self._rt.cudaStreamEndCapture(self._stream)
        if error == self._rt.cudaError_t.cudaSuccess:
            checked(self._rt, self._rt.cudaGraphDestroy(graph))
        self._rt.cudaGetLastError()  # forget it: the launches go without a graph

    def launch(self) -> None:
        rt = self._rt
        checked(rt, rt.cudaEventRecord(self._start, self._stream))
        if self._graph is None:
            self._work()
        else:
            # A graph takes the priority of the stream it is launched on.
            checked(rt, rt.cudaGraphLaunch(self._graph, self._stream))
        checked(rt, rt.cudaEventRecord(self._end, self._stream))

    def synchronize(self) -> None:
        checked(self._rt, self._rt.cudaStreamSynchronize(self._stream))

    def gpu_ms(self) -> float:
        return float(checked(self._rt, self._rt.cudaEventElapsedTime(self._start, self._end)))

    def close(self) -> None:
        self._closing.close()
