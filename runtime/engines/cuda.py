"""The interface through which an engine uses CUDA.

Two packages implement it: cuda-bindings and PyCUDA. If both are installed, cuda-bindings is used.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt

from v2a.errors import EngineError
from v2a.install import install_hint

Bytes = npt.NDArray[np.uint8]

CUDA = {
    "cuda.bindings": ("runtime.engines.cuda_bindings", "CudaBindings"),
    "pycuda": ("runtime.engines.pycuda", "PyCuda"),
}

# Files with the exact driver version: on a PC or newer Jetson, on an older Jetson.
_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that engines run on: device 0."""

    name: str
    sm: int  # compute capability without its dot, such as 87
    integrated: bool  # CPU and GPU share one memory, as on a Jetson
    cuda: int  # newest CUDA version that the driver supports, such as 12060
    driver: str


class Buffer(Protocol):
    """Memory that the GPU accesses at `address` and the host as `host`, uint8 [n]."""

    host: Bytes
    address: int

    def close(self) -> None: ...


class Queue(Protocol):
    """The CUDA stream of one engine and the work that it launches."""

    handle: int  # the cudaStream_t

    def upload(self, buffer: Buffer) -> None:
        """Start a copy from host to GPU. Does nothing if both are the same memory."""
        ...

    def download(self, buffer: Buffer) -> None:
        """Start a copy from GPU to host. Does nothing if both are the same memory."""
        ...

    def capture(self, work: Callable[[], None]) -> bool:
        """Make `work` the work of `launch`. Return whether it was captured as a CUDA graph."""
        ...

    def launch(self) -> None:
        """Start the captured work."""
        ...

    def synchronize(self) -> None:
        """Sleep until all work is done."""
        ...

    def gpu_ms(self) -> float:
        """Return the GPU time of the last launch in ms, without copies."""
        ...

    def close(self) -> None: ...


class Cuda(Protocol):
    """A CUDA package, opened on device 0. Every fault raises EngineError."""

    gpu: Gpu

    def buffer(self, nbytes: int) -> Buffer:
        """Allocate page-locked host memory and GPU memory, one block on an integrated GPU."""
        ...

    def queue(self, urgent: bool) -> Queue:
        """Create a stream. The GPU starts kernels of urgent streams first."""
        ...


def open_cuda() -> Cuda:
    """Open the first installed row of `CUDA`. Raises EngineError without one or without a GPU."""
    for package, (module, name) in CUDA.items():
        try:
            import_module(package)
        except ImportError:
            continue
        cuda: Cuda = getattr(import_module(module), name)()
        return cuda
    raise EngineError(
        f"no CUDA for Python ({' or '.join(CUDA)}); on a Jetson {install_hint('jetson')}; "
        f"elsewhere {install_hint('gpu')}"
    )


def driver_text() -> str:
    """Return the first line of the driver's version file, or "" without one."""
    for file in _DRIVER_FILES:
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    return ""
