"""The CUDA seam on a real GPU: memory, streams, priorities, graphs, events."""

from __future__ import annotations

import gc
from contextlib import ExitStack, closing
from importlib import import_module
from typing import Any

import numpy as np
import pytest

from runtime.engines.cuda import Cuda
from runtime.engines.cuda_bindings import checked
from v2a.errors import EngineError

MIB = 1 << 20


@pytest.fixture(scope="session")
def rt(cuda: Cuda) -> Any:
    return import_module("cuda.bindings.runtime")


def free_bytes(rt: Any) -> int:
    gc.collect()
    return int(checked(rt, rt.cudaMemGetInfo())[0])


def test_the_gpu_says_what_it_is(cuda: Cuda) -> None:
    assert cuda.gpu.name
    assert cuda.gpu.sm >= 75
    assert cuda.gpu.cuda >= 12000
    assert cuda.gpu.driver


def test_bytes_come_back_from_the_gpu_as_they_went(cuda: Cuda) -> None:
    wanted = np.random.default_rng(0).integers(0, 256, 3 * MIB + 1, dtype=np.uint8)
    with closing(cuda.buffer(wanted.nbytes)) as buffer, closing(cuda.queue(urgent=True)) as queue:
        buffer.host[:] = wanted
        queue.upload(buffer)
        queue.synchronize()
        if not cuda.gpu.integrated:  # else the host's memory is the GPU's
            buffer.host[:] = 0
        queue.download(buffer)
        queue.synchronize()
        np.testing.assert_array_equal(buffer.host, wanted)


def test_an_urgent_queue_has_the_higher_priority(cuda: Cuda, rt: Any) -> None:
    with closing(cuda.queue(urgent=True)) as high, closing(cuda.queue(urgent=False)) as low:
        urgent, patient = (
            checked(rt, rt.cudaStreamGetPriority(queue.handle)) for queue in (high, low)
        )
    assert urgent < patient  # CUDA: the lower the number, the more urgent


def test_a_captured_launch_does_the_work_again_each_time(cuda: Cuda, rt: Any) -> None:
    with ExitStack() as opened:
        a, b = (opened.enter_context(closing(cuda.buffer(64))) for _ in range(2))
        queue = opened.enter_context(closing(cuda.queue(urgent=True)))
        kind = rt.cudaMemcpyKind.cudaMemcpyDeviceToDevice

        def copy() -> None:
            checked(rt, rt.cudaMemcpyAsync(b.address, a.address, 64, kind, queue.handle))

        assert queue.capture(copy)
        for value in (1, 2, 3):
            a.host[:] = value
            queue.upload(a)
            queue.launch()
            queue.download(b)
            queue.synchronize()
            assert (b.host == value).all()
        assert queue.gpu_ms() > 0


def test_what_can_not_be_captured_is_launched_without_a_graph(cuda: Cuda, rt: Any) -> None:
    runs = []
    with closing(cuda.queue(urgent=True)) as queue:

        def forbidden() -> None:
            runs.append(1)
            checked(rt, rt.cudaStreamSynchronize(queue.handle))

        assert not queue.capture(forbidden)
        queue.launch()
        queue.synchronize()
    assert len(runs) == 2


def test_closing_gives_the_memory_back(cuda: Cuda, rt: Any) -> None:
    cuda.buffer(256 * MIB).close()  # the first use of CUDA takes some memory for good
    before = free_bytes(rt)
    for _ in range(8):
        buffer, queue = cuda.buffer(256 * MIB), cuda.queue(urgent=False)
        queue.close()
        buffer.close()
        buffer.close()
    assert free_bytes(rt) > before - 64 * MIB


def test_too_much_memory_is_one_line(cuda: Cuda) -> None:
    with pytest.raises(EngineError, match=r"CUDA error 2: .*; close other programs on the GPU"):
        cuda.buffer(1 << 46)
