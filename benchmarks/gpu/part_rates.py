"""Part m: measures the rates of this card, which the other parts are compared with."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from gpu.device import Device, Lane, Launch
from gpu.machine import Context

PICTURE = (480, 640, 3)


def _per_launch_s(lane: Lane, launch: Launch, runs: int) -> float:
    """GPU time of one launch: the median over batches of ten, submitted in a row."""
    taken = []
    for _ in range(max(3, runs // 10)):
        lane.wait()
        start_ns = time.perf_counter_ns()
        for _ in range(10):
            launch()
        lane.wait()
        taken.append((time.perf_counter_ns() - start_ns) / 10)
    return float(np.median(taken)) / 1e9


def _host_us(work: Callable[[], None], runs: int) -> dict[str, float]:
    """Quantiles of the host's time for one call."""
    taken = []
    for number in range(runs + 20):
        start_ns = time.perf_counter_ns()
        work()
        if number >= 20:
            taken.append(time.perf_counter_ns() - start_ns)
    p50, p99 = np.quantile(taken, [0.5, 0.99]) / 1e3
    return {"p50_us": float(p50), "p99_us": float(p99), "n": runs}


def _copy(device: Device, lane: Lane) -> dict[str, float]:
    """Device to device, bytes read and written counted."""
    count = (1 << 30) if device.is_gpu else (1 << 20)
    source = device.random(count // 2, dtype=torch.float16).view(torch.uint8)
    to = torch.empty_like(source)
    seconds = _per_launch_s(lane, lane.capture(lambda: to.copy_(source)), 100)
    return {"bytes": source.numel(), "gb_s": 2 * source.numel() / seconds / 1e9}


def _gemm(
    device: Device, lane: Lane, shape: tuple[int, int, int], dtype: torch.dtype
) -> dict[str, Any]:
    rows, inner, columns = shape
    left, right = (
        device.random(rows, inner, dtype=dtype),
        device.random(inner, columns, dtype=dtype),
    )
    seconds = _per_launch_s(lane, lane.capture(lambda: left @ right), 60)
    moved = (rows * inner + inner * columns + rows * columns) * left.element_size()
    return {
        "shape": shape, "us": seconds * 1e6, "tflop_s": 2 * rows * inner * columns / seconds / 1e12,
        "gb_s": moved / seconds / 1e9,
    }  # fmt: skip


def _launches(device: Device, lane: Lane) -> dict[str, Any]:
    """A graph of one small kernel, launched and waited for; and the time a node in a long one."""
    small = device.random(67, 2048)
    one = lane.capture(lambda: small.add_(1e-3))

    def both() -> None:
        one()
        lane.wait()

    nodes = 2000 if device.is_gpu else 20

    def many() -> None:
        for _ in range(nodes):
            small.add_(1e-6)

    long_s = _per_launch_s(lane, lane.capture(many), 30)
    eager_s = _per_launch_s(lane, lane.eager(many), 30)
    return {
        "graph_and_wait": _host_us(both, 500),
        "submit_only": _host_us(one, 500),
        "us_a_node_in_a_graph": 1e6 * long_s / nodes,
        "us_a_kernel_eager": 1e6 * eager_s / nodes,
    }


def _picture(device: Device, lane: Lane) -> dict[str, Any]:
    """One picture of a camera to the device and back, waited for."""
    plain = torch.randint(0, 256, PICTURE, dtype=torch.uint8)
    pinned = plain.pin_memory() if device.is_gpu else plain.clone()
    there = torch.empty(PICTURE, dtype=torch.uint8, device=device.kind)

    def moved(to: torch.Tensor, source: torch.Tensor) -> Callable[[], None]:
        def work() -> None:
            lane.copy(to, source)
            lane.wait()

        return work

    return {
        "bytes": plain.numel(),
        "h2d_pinned": _host_us(moved(there, pinned), 300),
        "h2d_pageable": _host_us(moved(there, plain), 300),
        "d2h_pinned": _host_us(moved(pinned, there), 300),
    }


def rates(context: Context) -> dict[str, Any]:
    """Copies, products, launches."""
    device, lane = context.device, context.device.lane()
    torch.backends.cuda.matmul.allow_tf32 = False
    side = 8192 if device.is_gpu else 32
    found: dict[str, Any] = {"copy": _copy(device, lane)}
    square = (side, side, side)
    found["gemm_bf16"] = _gemm(device, lane, square, torch.bfloat16)
    half = (side // 2,) * 3
    found["gemm_fp32"] = _gemm(device, lane, half, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = True
    found["gemm_tf32"] = _gemm(device, lane, half, torch.float32)
    torch.backends.cuda.matmul.allow_tf32 = False
    # The widest product of the action core's step and of a video DiT block.
    toy = 1 if device.is_gpu else 64
    core, dit = (67, 2048 // toy, 6144 // toy), (784 // toy, 3072 // toy, 14336 // toy)
    found["gemm_core"] = _gemm(device, lane, core, device.dtype)
    found["gemm_dit"] = _gemm(device, lane, dit, device.dtype)
    context.keep(found)
    found["launch"] = _launches(device, lane)
    found["picture"] = _picture(device, lane)
    return found
