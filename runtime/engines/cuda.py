"""The few things that an engine asks of CUDA.

Two packages can do them: cuda-bindings and PyCUDA. Whichever is installed is used, the first where
both are.
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

Bytes = npt.NDArray[np.uint8]

CUDA = {
    "cuda.bindings": ("runtime.engines.cuda_bindings", "CudaBindings"),
    "pycuda": ("runtime.engines.pycuda", "PyCuda"),
}

# Where the exact driver is written: on a PC and newer Jetsons, on a Jetson.
_DRIVER_FILES = (Path("/proc/driver/nvidia/version"), Path("/etc/nv_tegra_release"))


@dataclass(frozen=True, slots=True)
class Gpu:
    """The GPU that engines run on: device 0."""

    name: str
    sm: int  # compute capability without its dot: 87
    integrated: bool  # CPU and GPU share one memory (a Jetson)
    cuda: int  # the newest CUDA that the driver runs: 12060
    driver: str


class Buffer(Protocol):
    """Memory that the GPU reads or writes at `address`, and the host as the bytes `host`."""

    host: Bytes
    address: int

    def close(self) -> None: ...


class Queue(Protocol):
    """A CUDA stream of one engine, and the work that it launches."""

    handle: int  # the cudaStream_t

    def upload(self, buffer: Buffer) -> None:
        """Host to GPU, not waited for. Nothing is copied where both are the same memory."""
        ...

    def download(self, buffer: Buffer) -> None:
        """GPU to host, not waited for."""
        ...

    def capture(self, work: Callable[[], None]) -> bool:
        """Make `work` what `launch` launches, as a CUDA graph where it can be recorded as one."""
        ...

    def launch(self) -> None: ...

    def synchronize(self) -> None:
        """Wait, without spinning, until all is done."""
        ...

    def gpu_ms(self) -> float:
        """How long the GPU worked on the last launch, copies left out."""
        ...

    def close(self) -> None: ...


class Cuda(Protocol):
    """Every fault is an EngineError."""

    gpu: Gpu

    def buffer(self, nbytes: int) -> Buffer:
        """Page-locked host memory and GPU memory; one and the same on an integrated GPU."""
        ...

    def queue(self, urgent: bool) -> Queue:
        """An urgent queue's kernels go first wherever the GPU can choose between two."""
        ...


def open_cuda() -> Cuda:
    """The first row of `CUDA` that is installed; EngineError without one, or without a GPU."""
    for package, (module, name) in CUDA.items():
        try:
            import_module(package)
        except ImportError:
            continue
        cuda: Cuda = getattr(import_module(module), name)()
        return cuda
    raise EngineError(
        f"no CUDA for Python ({' or '.join(CUDA)}); run: pip install '.[jetson]' on a Jetson, "
        "'.[gpu]' elsewhere"
    )


def driver_text() -> str:
    """The first line of the driver's own version file, or nothing where there is none."""
    for file in _DRIVER_FILES:
        if file.is_file():
            return file.read_text(encoding="utf-8", errors="replace").splitlines()[0].strip()
    return ""
