"""Implements `runtime.engines.cuda` with PyCUDA, for machines without cuda-bindings.

PyCUDA 2026.1 supports neither stream priorities nor CUDA graphs (src/wrapper/wrap_cudadrv.cpp). So
System 1 has no priority here, and each run launches its kernels one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import numpy as np

from runtime.engines.cuda import Buffer, Bytes, Gpu, Queue, driver_text
from v2a.errors import EngineError

_NON_BLOCKING = 1  # CU_STREAM_NON_BLOCKING of cuda.h; PyCUDA has no name for it


class Context:
    """The device's primary context, which TensorRT uses too.

    `with context():` pushes it for one call. Any thread may call, and PyCUDA aborts a thread that
    ends with a context still pushed.
    """

    def __init__(self, driver: Any) -> None:
        self.driver = driver
        driver.init()
        self._primary = driver.Device(0).retain_primary_context()

    @contextmanager
    def __call__(self) -> Iterator[Any]:
        self._primary.push()
        try:
            yield self.driver
        except self.driver.Error as fault:
            raise EngineError(f"CUDA: {fault}; if it persists, restart the process") from fault
        finally:
            self.driver.Context.pop()


class PyCuda:
    """The `Cuda` of PyCUDA 2026.1."""

    def __init__(self) -> None:
        driver: Any = import_module("pycuda.driver")
        try:
            self._context = Context(driver)
        except driver.Error as fault:
            raise EngineError(f"CUDA: {fault}; is there an NVIDIA GPU and its driver?") from fault
        with self._context():
            device = driver.Device(0)
            major, minor = device.compute_capability()
            integrated = device.get_attribute(driver.device_attribute.INTEGRATED)
            self.gpu = Gpu(
                name=device.name(),
                sm=10 * major + minor,
                integrated=bool(integrated),
                cuda=driver.get_driver_version(),
                driver=driver_text(),
            )

    def buffer(self, nbytes: int) -> Buffer:
        return _Buffer(self._context, nbytes, mapped=self.gpu.integrated)

    def queue(self, urgent: bool) -> Queue:
        return _Queue(self._context)


class _Buffer:
    def __init__(self, context: Context, nbytes: int, mapped: bool) -> None:
        self.mapped = mapped
        with context() as driver, ExitStack() as opened:
            flags = driver.host_alloc_flags.DEVICEMAP if mapped else 0
            self.host: Bytes = driver.pagelocked_empty(nbytes, np.uint8, mem_flags=flags)
            allocation: Any = self.host.base
            opened.callback(_free, context, allocation)
            if mapped:
                self.address = int(allocation.get_device_pointer())
            else:
                memory = driver.mem_alloc(nbytes)
                opened.callback(_free, context, memory)
                self.address = int(memory)
            self._closing = opened.pop_all()

    def close(self) -> None:
        self.host = np.empty(0, np.uint8)
        self._closing.close()


def _free(context: Context, memory: Any) -> None:
    with context():
        memory.free()


class _Queue:
    def __init__(self, context: Context) -> None:
        self._context = context
        with context() as driver:
            self._stream = driver.Stream(_NON_BLOCKING)
            self._start, self._end = driver.Event(), driver.Event()
        self.handle = int(self._stream.handle)

    def upload(self, buffer: Any) -> None:
        if not buffer.mapped:
            with self._context() as driver:
                driver.memcpy_htod_async(buffer.address, buffer.host, self._stream)

    def download(self, buffer: Any) -> None:
        if not buffer.mapped:
            with self._context() as driver:
                driver.memcpy_dtoh_async(buffer.host, buffer.address, self._stream)

    def capture(self, work: Callable[[], None]) -> bool:
        self._work = work
        return False

    def launch(self) -> None:
        with self._context():
            self._start.record(self._stream)
            self._work()
            self._end.record(self._stream)

    def synchronize(self) -> None:
        with self._context():
            self._stream.synchronize()

    def gpu_ms(self) -> float:
        with self._context():
            return float(self._end.time_since(self._start))

    def close(self) -> None:
        """Drop the stream and events; PyCUDA frees them with their Python objects."""
        if self._stream is not None:
            with self._context():
                self._stream = self._start = self._end = None
