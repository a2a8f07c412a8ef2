"""Chooses the GPU, or the CPU for a rehearsal. All parts get their device here."""

from __future__ import annotations

import contextlib
import gc
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

Work = Callable[[], Any]
Launch = Callable[[], None]


class Lane:
    """One system's CUDA stream: work is captured on it, launched on it and waited for.

    On the CPU (`stream` is None) a launch computes at once, in the calling thread.
    """

    def __init__(self, stream: Any = None) -> None:
        self.stream = stream
        # A thread that waits sleeps, as in the runtime: spinning would cost a core of the robot.
        self._done = torch.cuda.Event(blocking=True) if stream is not None else None

    def here(self) -> Any:
        """A context in which PyTorch puts its work on this stream."""
        return torch.cuda.stream(self.stream) if self.stream else contextlib.nullcontext()

    def capture(self, work: Work, warm_up: int = 2) -> Launch:
        """`work` as one CUDA graph. Its kernels keep this stream's priority and its SMs."""
        if self.stream is not None:
            torch.cuda.synchronize()  # weights and inputs come from other streams
        with self.here(), torch.no_grad():
            for _ in range(warm_up):
                work()
        self.wait()
        if self.stream is None:
            return partial(_compute, work)
        graph = torch.cuda.CUDAGraph()
        gc.disable()  # a collected graph would break the capture
        try:
            with self.here(), torch.no_grad():
                # Thread-local: other threads may use the GPU during the capture.
                graph.capture_begin(capture_error_mode="thread_local")
                work()
                graph.capture_end()
        finally:
            gc.enable()
        return partial(self._replay, graph)

    def eager(self, work: Work) -> Launch:
        """`work` launched kernel by kernel."""

        def launch() -> None:
            with self.here():
                _compute(work)

        return launch

    def _replay(self, graph: Any) -> None:
        with self.here():
            graph.replay()

    def copy(self, to: Tensor, source: Tensor) -> None:
        """Not waited for where the host's memory is page-locked."""
        with self.here():
            to.copy_(source, non_blocking=True)

    def mark(self) -> Callable[[], None]:
        """A wait for what is on this stream now, whatever comes after it."""
        if self.stream is None:
            return lambda: None
        event = torch.cuda.Event(blocking=True)
        event.record(self.stream)
        return event.synchronize

    def wait(self) -> None:
        """Until all work on this stream is done."""
        if self._done is not None:
            self._done.record(self.stream)
            self._done.synchronize()


@torch.no_grad()
def _compute(work: Work) -> None:
    work()


class Device:
    """Where a part runs: `cuda` in bfloat16, or `cpu` in float32."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.is_gpu = kind == "cuda"
        self.dtype = torch.bfloat16 if self.is_gpu else torch.float32
        if not self.is_gpu:
            torch.set_num_threads(1)

    def lane(self, priority: int = 0) -> Lane:
        """A stream of its own. The lower the number, the more urgent; 0 is the default."""
        return Lane(torch.cuda.Stream(priority=priority) if self.is_gpu else None)

    def random(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Standard normal; never zeros, as a product of zeros is faster."""
        return torch.randn(shape, device=self.kind).to(dtype or self.dtype)

    def host(self, *shape: int, dtype: torch.dtype | None = None) -> Tensor:
        """Page-locked where there is a GPU."""
        return torch.randn(shape).to(dtype or self.dtype).pin_memory() if self.is_gpu else (
            torch.randn(shape).to(dtype or self.dtype)
        )  # fmt: skip

    def synchronize(self) -> None:
        if self.is_gpu:
            torch.cuda.synchronize()

    def facts(self) -> dict[str, Any]:
        """Versions, and the GPU's name and size."""
        found: dict[str, Any] = {"torch": torch.__version__, "device": self.kind}
        if self.is_gpu:
            card = torch.cuda.get_device_properties(0)
            found |= {
                "gpu": card.name, "sms": card.multi_processor_count,
                "memory_gib": round(card.total_memory / 2**30, 1), "cuda": torch.version.cuda,
                "cudnn": torch.backends.cudnn.version(),
            }  # fmt: skip
        return found

    def peak_gib(self) -> float:
        """Most memory that PyTorch held."""
        return round(torch.cuda.max_memory_reserved() / 2**30, 2) if self.is_gpu else 0.0
