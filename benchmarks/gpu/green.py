"""Makes green contexts: two complementary sets of SMs, each with its own stream (CUDA 12.4)."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import torch

from gpu.device import Device, Lane


@dataclass
class Partition:
    """Streams of both sets, and how many SMs the driver gave to each."""

    first: Lane
    rest: Lane
    sms: tuple[int, int]
    keep: list[Any]


def split_sms(device: Device, wanted: int) -> Partition:
    """`wanted` SMs, rounded up by the driver, and all others. RuntimeError where it refuses."""
    if not device.is_gpu:
        return Partition(device.lane(), device.lane(), (wanted, 0), [])
    driver = import_module("cuda.bindings.driver")

    def checked(result: Any) -> Any:
        error, *values = result
        if error != driver.CUresult.CUDA_SUCCESS:
            raise RuntimeError(f"green contexts: {driver.cuGetErrorName(error)[1].decode()}")
        return values[0] if len(values) == 1 else values

    torch.cuda.init()
    card = checked(driver.cuDeviceGet(0))
    kind = driver.CUdevResourceType.CU_DEV_RESOURCE_TYPE_SM
    everything = checked(driver.cuDeviceGetDevResource(card, kind))
    groups, _, rest = checked(driver.cuDevSmResourceSplitByCount(1, everything, 0, wanted))
    keep: list[Any] = []
    lanes, sizes = [], []
    for resource in (groups[0], rest):
        description = checked(driver.cuDevResourceGenerateDesc([resource], 1))
        flags = driver.CUgreenCtxCreate_flags.CU_GREEN_CTX_DEFAULT_STREAM
        context = checked(driver.cuGreenCtxCreate(description, card, flags))
        non_blocking = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        stream = checked(driver.cuGreenCtxStreamCreate(context, non_blocking, 0))
        keep += [context, stream]
        sizes.append(int(resource.sm.smCount))
        lanes.append(Lane(torch.cuda.ExternalStream(int(stream))))
    return Partition(lanes[0], lanes[1], (sizes[0], sizes[1]), keep)


SMID = r"""
extern "C" __global__ void where(int* seen, long long cycles) {
    unsigned id;
    asm volatile("mov.u32 %0, %%smid;" : "=r"(id));
    if (threadIdx.x == 0) seen[id] = 1;
    long long start = clock64();
    while (clock64() - start < cycles) {}
}
"""


def sms_used(lane: Lane, captured: bool) -> list[int]:
    """SMs on which a kernel of many blocks ran, launched on this stream or by a graph of it."""
    cupy = import_module("cupy")
    kernel = cupy.RawKernel(SMID, "where")
    seen = torch.zeros(256, dtype=torch.int32, device="cuda")
    torch.cuda.synchronize()

    def work() -> None:
        with cupy.cuda.ExternalStream(lane.stream.cuda_stream):
            kernel((2048,), (1024,), (cupy.from_dlpack(seen), cupy.int64(20_000)))

    if captured:
        launch = lane.capture(work, warm_up=0)
        seen.zero_()
        torch.cuda.synchronize()
        launch()
    else:
        work()
    lane.wait()
    return [int(i) for i in seen.nonzero().flatten().tolist()]
