"""Implements `runtime.engines.cuda` with NVIDIA's cuda-bindings."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from contextlib import ExitStack
from importlib import import_module
from typing import Any

import numpy as np

from runtime.engines.cuda import Buffer, Bytes, Gpu, Queue, driver_text
from v2a.errors import EngineError

# cudaError_t of the runtime API -> fix.
_FIXES = {
    # MemoryAllocation, InsufficientDriver, NoDevice
    2: "close other programs on the GPU, or use a smaller policy or precision",
    35: "install an NVIDIA driver for this CUDA; on JetPack 6 use cuda-bindings 12",
    100: "is there an NVIDIA GPU, and may this user open /dev/nvidia* ?",
}


def checked(rt: Any, result: tuple[Any, ...]) -> Any:
    """Return the values of a CUDA runtime call. Raises EngineError if its error code says so."""
    error, *values = result
    if error != rt.cudaError_t.cudaSuccess:
        rt.cudaGetLastError()  # clear it: the next call, perhaps TensorRT's own, must not see it
        text = rt.cudaGetErrorString(error)[1].decode()
        fix = _FIXES.get(int(error), "if it persists, restart the process")
        raise EngineError(f"CUDA error {int(error)}: {text}; {fix}")
    return values[0] if len(values) == 1 else tuple(values)


class CudaBindings:
    """The `Cuda` of cuda-bindings 12.6 or newer, whose calls return an error code and values."""

    def __init__(self) -> None:
        self._rt: Any = import_module("cuda.bindings.runtime")
        # Threads sleep while they wait for the GPU: spinning would take the control loop's core.
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
            # Non-blocking: a library's work on the default stream must not delay either system.
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
        # Thread-local: other threads' CUDA calls do not spoil the capture.
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
        """Restore the stream: a failed capture must be ended, too."""
        error, graph = self._rt.cudaStreamEndCapture(self._stream)
        if error == self._rt.cudaError_t.cudaSuccess:
            checked(self._rt, self._rt.cudaGraphDestroy(graph))
        self._rt.cudaGetLastError()  # clear it: launches work without a graph

    def launch(self) -> None:
        rt = self._rt
        checked(rt, rt.cudaEventRecord(self._start, self._stream))
        if self._graph is None:
            self._work()
        else:
            # A graph runs at the priority of its launch stream.
            checked(rt, rt.cudaGraphLaunch(self._graph, self._stream))
        checked(rt, rt.cudaEventRecord(self._end, self._stream))

    def synchronize(self) -> None:
        checked(self._rt, self._rt.cudaStreamSynchronize(self._stream))

    def gpu_ms(self) -> float:
        return float(checked(self._rt, self._rt.cudaEventElapsedTime(self._start, self._end)))

    def close(self) -> None:
        self._closing.close()
