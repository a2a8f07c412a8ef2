"""A CUDA without a GPU: `cuda.bindings.runtime`, and `pycuda.driver` on top of it, as far as used.

It is strict where CUDA is: work waits in its stream until somebody synchronises, memory is freed
once and not while work waits, handles are dead after their end, host and device addresses are not
each other's, and a capture records instead of doing.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sized
from contextlib import suppress
from dataclasses import dataclass, field
from enum import IntEnum
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

Action = Callable[[], None]
Memory = npt.NDArray[np.uint8]


class Error(IntEnum):
    cudaSuccess = 0  # noqa: N815  CUDA's names
    cudaErrorInvalidValue = 1  # noqa: N815
    cudaErrorMemoryAllocation = 2  # noqa: N815
    cudaErrorInvalidResourceHandle = 400  # noqa: N815
    cudaErrorIllegalState = 401  # noqa: N815
    cudaErrorLaunchFailure = 719  # noqa: N815
    cudaErrorStreamCaptureInvalidated = 901  # noqa: N815


class FaultError(Exception):
    """A call's error code, on its way to the tuple that the call returns."""

    def __init__(self, error: Error) -> None:
        self.error = error


@dataclass
class Stream:
    priority: int
    waiting: list[Action] = field(default_factory=list)
    recording: list[Action] | None = None
    spoiled: bool = False


class FakeRuntime:
    """Stands in for the module `cuda.bindings.runtime`."""

    cudaError_t = Error  # noqa: N815
    cudaMemcpyKind = SimpleNamespace(cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2)  # noqa: N815
    cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)  # noqa: N815
    cudaHostAllocDefault, cudaHostAllocMapped = 0, 2  # noqa: N815
    cudaStreamNonBlocking = 1  # noqa: N815
    cudaDeviceScheduleBlockingSync = 4  # noqa: N815

    def __init__(self, integrated: bool = False) -> None:
        self.integrated = integrated
        self.capability = (8, 7)
        self.calls: list[str] = []
        self.fail_at: int | None = None  # index into `calls` of the call that fails
        self.host: dict[int, Memory] = {}
        self.device: dict[int, Memory] = {}
        self.streams: dict[int, Stream] = {}
        self.events: dict[int, float | None] = {}
        self.graphs: dict[int, list[Action]] = {}
        self.execs: dict[int, list[Action]] = {}
        self.now_ms = 0.0
        self.last_error = Error.cudaSuccess
        self._graveyard: list[Memory] = []
        self._next = 0x1000

    def __getattr__(self, name: str) -> Callable[..., tuple[Any, ...]]:
        do = object.__getattribute__(self, f"_{name}")

        def call(*args: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if self.fail_at == len(self.calls) - 1:
                if any(word in name for word in ("Destroy", "Free", "Synchronize")):
                    do(*args)  # it is done, and the error is an earlier call's
                self.last_error = Error.cudaErrorLaunchFailure
                return (self.last_error, None)
            try:
                value = do(*args)
            except FaultError as fault:
                self.last_error = fault.error
                return (fault.error, None)
            return (Error.cudaSuccess, *(value if isinstance(value, tuple) else (value,)))

        return call

    def alive(self) -> int:
        """Everything that somebody has still to free."""
        kinds: tuple[Sized, ...] = (
            self.host,
            self.device,
            self.streams,
            self.events,
            self.graphs,
            self.execs,
        )
        return sum(map(len, kinds))

    def enqueue(self, stream: int, action: Action) -> None:
        """Put work into a stream, as a kernel launch does; a recording one only notes it."""
        row = self._live(self.streams, stream)
        (row.waiting if row.recording is None else row.recording).append(action)

    def spoil(self, stream: int) -> None:
        """What a forbidden call does to a capture."""
        self.streams[stream].spoiled = True

    def capturing(self, stream: int) -> bool:
        return self.streams[stream].recording is not None

    def _handle(self) -> int:
        self._next += 0x1000
        return self._next

    @staticmethod
    def _live(table: dict[int, Any], handle: Any) -> Any:
        if handle not in table:
            raise FaultError(Error.cudaErrorInvalidResourceHandle)
        return table[handle]

    def _end(self, table: dict[int, Any], handle: Any) -> None:
        self._live(table, handle)
        del table[handle]

    def _cudaGetErrorString(self, error: Error) -> bytes:  # noqa: N802
        return error.name.encode()

    def _cudaGetLastError(self) -> None:  # noqa: N802
        self.last_error = Error.cudaSuccess

    def _cudaSetDeviceFlags(self, flags: int) -> None:  # noqa: N802
        assert flags == self.cudaDeviceScheduleBlockingSync

    def _cudaDriverGetVersion(self) -> int:  # noqa: N802
        return 12060

    def _cudaGetDeviceProperties(self, device: int) -> SimpleNamespace:  # noqa: N802
        assert device == 0
        major, minor = self.capability
        return SimpleNamespace(
            name=b"Fake", major=major, minor=minor, integrated=int(self.integrated)
        )

    def _cudaDeviceGetStreamPriorityRange(self) -> tuple[int, int]:  # noqa: N802
        return 0, -5

    def _cudaHostAlloc(self, nbytes: int, flags: int) -> int:  # noqa: N802
        assert flags == (self.cudaHostAllocMapped if self.integrated else self.cudaHostAllocDefault)
        memory = np.full(nbytes, 0xCD, np.uint8)
        self.host[memory.ctypes.data] = memory
        return int(memory.ctypes.data)

    def _cudaHostGetDevicePointer(self, host: int, flags: int) -> int:  # noqa: N802
        address = self._handle()
        self._mapped = {**getattr(self, "_mapped", {}), address: self._live(self.host, host)}
        return address

    def _cudaFreeHost(self, host: int) -> None:  # noqa: N802
        self._free(self.host, host)

    def _cudaMalloc(self, nbytes: int) -> int:  # noqa: N802
        address = self._handle()
        self.device[address] = np.full(nbytes, 0xCD, np.uint8)
        return address

    def _cudaFree(self, address: int) -> None:  # noqa: N802
        self._free(self.device, address)

    def _free(self, table: dict[int, Memory], address: int) -> None:
        if any(stream.waiting for stream in self.streams.values()):
            raise FaultError(Error.cudaErrorIllegalState)
        memory = self._live(table, address)
        memory.fill(0xDD)
        self._graveyard.append(memory)  # a stale pointer reads rubbish, not somebody else's memory
        del table[address]

    def memory(self, address: int) -> Memory:
        """What is at a device address; KeyError for any other."""
        mapped: dict[int, Memory] = getattr(self, "_mapped", {})
        return mapped[address] if address in mapped else self.device[address]

    def _cudaMemcpyAsync(  # noqa: N802
        self, to: int, source: int, nbytes: int, kind: int, stream: int
    ) -> None:
        up = kind == self.cudaMemcpyKind.cudaMemcpyHostToDevice
        tables = (self.device, self.host) if up else (self.host, self.device)
        target, origin = self._live(tables[0], to), self._live(tables[1], source)
        if nbytes != len(target) or nbytes != len(origin):
            raise FaultError(Error.cudaErrorInvalidValue)
        self.enqueue(stream, lambda: np.copyto(target, origin))

    def _cudaStreamCreateWithPriority(self, flags: int, priority: int) -> int:  # noqa: N802
        assert flags == self.cudaStreamNonBlocking
        handle = self._handle()
        self.streams[handle] = Stream(priority)
        return handle

    def _cudaStreamDestroy(self, stream: int) -> None:  # noqa: N802
        if self._live(self.streams, stream).waiting:
            raise FaultError(Error.cudaErrorIllegalState)  # stricter than CUDA
        self._end(self.streams, stream)

    def _cudaStreamSynchronize(self, stream: int) -> None:  # noqa: N802
        row = self._live(self.streams, stream)
        waiting, row.waiting = row.waiting, []
        for action in waiting:
            action()

    def _cudaStreamBeginCapture(self, stream: int, mode: int) -> None:  # noqa: N802
        row = self._live(self.streams, stream)
        row.recording, row.spoiled = [], False

    def _cudaStreamEndCapture(self, stream: int) -> int:  # noqa: N802
        row = self._live(self.streams, stream)
        recorded, row.recording = row.recording, None
        if recorded is None:
            raise FaultError(Error.cudaErrorIllegalState)
        if row.spoiled:
            raise FaultError(Error.cudaErrorStreamCaptureInvalidated)
        handle = self._handle()
        self.graphs[handle] = recorded
        return handle

    def _cudaGraphInstantiate(self, graph: int, flags: int) -> int:  # noqa: N802
        handle = self._handle()
        self.execs[handle] = list(self._live(self.graphs, graph))
        return handle

    def _cudaGraphDestroy(self, graph: int) -> None:  # noqa: N802
        self._end(self.graphs, graph)

    def _cudaGraphExecDestroy(self, graph: int) -> None:  # noqa: N802
        self._end(self.execs, graph)

    def _cudaGraphLaunch(self, graph: int, stream: int) -> None:  # noqa: N802
        for action in self._live(self.execs, graph):
            self.enqueue(stream, action)

    def _cudaEventCreate(self) -> int:  # noqa: N802
        handle = self._handle()
        self.events[handle] = None
        return handle

    def _cudaEventDestroy(self, event: int) -> None:  # noqa: N802
        self._end(self.events, event)

    def _cudaEventRecord(self, event: int, stream: int) -> None:  # noqa: N802
        self._live(self.events, event)

        def note() -> None:
            self.events[event] = self.now_ms

        self.enqueue(stream, note)

    def _cudaEventElapsedTime(self, start: int, end: int) -> float:  # noqa: N802
        begun, ended = self._live(self.events, start), self._live(self.events, end)
        if begun is None or ended is None:
            raise FaultError(Error.cudaErrorInvalidValue)
        return float(ended - begun)


class PyCudaError(Exception):
    """`pycuda.driver.Error`."""


class FakePyCuda:
    """Stands in for the module `pycuda.driver`; the memory and the streams are a FakeRuntime's.

    PyCUDA aborts the process where a thread ends with a context pushed: `pushed` shows it.
    """

    Error = PyCudaError
    host_alloc_flags = SimpleNamespace(DEVICEMAP=2)
    device_attribute = SimpleNamespace(INTEGRATED=18)

    def __init__(self, rt: FakeRuntime) -> None:
        self.rt = rt
        self.pushed = 0
        self.Context = SimpleNamespace(pop=self._pop)

    def __call__(self, name: str, *args: Any) -> Any:
        """A call of the runtime below, with its error as PyCUDA's exception."""
        if not self.pushed:
            raise PyCudaError(f"{name}: no context is current")
        error, *values = getattr(self.rt, name)(*args)
        if error != self.rt.cudaError_t.cudaSuccess:
            raise PyCudaError(f"{name} failed: {error.name}")
        return values[0]

    def _push(self) -> None:
        self.pushed += 1

    def _pop(self) -> None:
        self.pushed -= 1

    def init(self) -> None: ...

    def get_driver_version(self) -> int:
        return 12060

    def Device(self, index: int) -> SimpleNamespace:  # noqa: N802
        assert index == 0
        return SimpleNamespace(
            retain_primary_context=lambda: SimpleNamespace(push=self._push),
            compute_capability=lambda: (8, 7),
            get_attribute=lambda _: int(self.rt.integrated),
            name=lambda: "Fake",
        )

    def pagelocked_empty(self, shape: int, dtype: type, mem_flags: int) -> Any:
        pointer = self("cudaHostAlloc", shape, mem_flags)
        block = np.ctypeslib.as_array((ctypes.c_uint8 * shape).from_address(pointer))
        array = block.view(_Based)
        array.allocation = SimpleNamespace(
            free=lambda: self("cudaFreeHost", pointer),
            get_device_pointer=lambda: self("cudaHostGetDevicePointer", pointer, 0),
            pointer=pointer,
        )
        return array

    def mem_alloc(self, nbytes: int) -> Any:
        return _Allocation(self, self("cudaMalloc", nbytes))

    def memcpy_htod_async(self, address: int, host: Any, stream: Any) -> None:
        pair = (address, host.allocation.pointer)
        self("cudaMemcpyAsync", *pair, host.nbytes, 1, stream.handle)

    def memcpy_dtoh_async(self, host: Any, address: int, stream: Any) -> None:
        pair = (host.allocation.pointer, address)
        self("cudaMemcpyAsync", *pair, host.nbytes, 2, stream.handle)

    def Stream(self, flags: int) -> Any:  # noqa: N802
        return _PyCudaStream(self, flags)

    def Event(self) -> Any:  # noqa: N802
        return _PyCudaEvent(self)


class _Based(np.ndarray[Any, Any]):
    """An array whose `base` is the allocation, as PyCUDA's are."""

    allocation: Any = None

    @property
    def base(self) -> Any:
        return self.allocation


class _Allocation:
    def __init__(self, driver: FakePyCuda, address: int) -> None:
        self._driver, self._address = driver, address

    def __int__(self) -> int:
        return self._address

    def free(self) -> None:
        self._driver("cudaFree", self._address)


class _PyCudaStream:
    def __init__(self, driver: FakePyCuda, flags: int) -> None:
        self._driver = driver
        self.handle = driver("cudaStreamCreateWithPriority", flags, 0)

    def synchronize(self) -> None:
        self._driver("cudaStreamSynchronize", self.handle)

    def __del__(self) -> None:
        with suppress(PyCudaError, AttributeError):  # PyCUDA's destructors warn; `alive` tells
            self._driver("cudaStreamDestroy", self.handle)


class _PyCudaEvent:
    def __init__(self, driver: FakePyCuda) -> None:
        self._driver = driver
        self.handle = driver("cudaEventCreate")

    def record(self, stream: _PyCudaStream) -> None:
        self._driver("cudaEventRecord", self.handle, stream.handle)

    def time_since(self, start: _PyCudaEvent) -> float:
        return float(self._driver("cudaEventElapsedTime", start.handle, self.handle))

    def __del__(self) -> None:
        with suppress(PyCudaError, AttributeError):  # PyCUDA's destructors warn; `alive` tells
            self._driver("cudaEventDestroy", self.handle)
