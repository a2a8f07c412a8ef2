"""Splits the GPU's time of one replay into kernels by kind and the gaps between them."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from gpu.device import Lane, Launch, Work
from gpu.machine import Context
from gpu.released import Chunk, config_of, random_policy
from gpu.system2 import System2

KINDS = (
    ("attention", ("sdpa", "flash", "fmha", "attention")),
    ("convolution", ("implicit_gemm", "conv", "cudnn", "fprop")),
    ("product", ("gemm", "nvjet", "cutlass", "gemv", "splitk", "cublas")),
    ("reduction", ("reduce", "norm", "softmax")),
    ("concatenation", ("cat",)),
    ("copy", ("memcpy", "memset", "copy")),
)
"""The first row of which a part is in the kernel's name. cuDNN's attention is called `...sdpa...
fprop...`, its convolutions `...implicit_gemm...`."""


def kind_of(kernel: str) -> str:
    """By what is in a kernel's name; `pointwise` where nothing fits."""
    name = kernel.lower()
    for kind, parts in KINDS:
        if any(part in name for part in parts):
            return kind
    return "pointwise"


def profiled(launch: Launch, lane: Lane, folder: Path, name: str) -> dict[str, Any]:
    """Kernels of one launch from PyTorch's profiler. Its times are for shares, not for speed."""
    activities = [ProfilerActivity.CPU]
    if lane.stream is not None:
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as seen:
        launch()
        lane.wait()
    file = folder / f"trace_{name}.json"
    seen.export_chrome_trace(str(file))
    events = json.loads(file.read_text(encoding="utf-8"))["traceEvents"]
    file.unlink()
    return shares([e for e in events if e.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")])


def shares(events: list[dict[str, Any]]) -> dict[str, Any]:
    """Microseconds and count by kind, the longest kernels, and the time no kernel ran."""
    if not events:
        return {"kernels": 0}
    times, counts, names = Counter[str](), Counter[str](), Counter[str]()
    for event in events:
        kind = kind_of(event["name"])
        times[kind] += event["dur"]
        counts[kind] += 1
        names[event["name"]] += event["dur"]
    start = min(e["ts"] for e in events)
    span = max(e["ts"] + e["dur"] for e in events) - start
    longest = max(events, key=lambda e: float(e["dur"]))
    return {
        "kernels": len(events), "span_us": span, "busy_us": sum(times.values()),
        "gaps_us": span - sum(times.values()),
        "us_by_kind": dict(times.most_common()), "count_by_kind": dict(counts.most_common()),
        "longest_us": longest["dur"], "longest": longest["name"][:120],
        "most_us": [[name[:120], taken] for name, taken in names.most_common(6)],
    }  # fmt: skip


def kernels(context: Context, fused: bool = False) -> dict[str, Any]:
    """The chunk in both forms, and System 2. `fused`: with blocks through torch.compile."""
    device, lane = context.device, context.device.lane()
    policy = random_policy(config_of(context.rehearse), device)
    work, system2 = Chunk(policy, device, fused), System2(policy, device, False, fused)
    videos = [device.random(1, 3, stream.num_frames, *stream.video_size)
              for stream in (policy.config.raw_stream, policy.config.motion_stream)]  # fmt: skip
    arms: dict[str, Work] = {
        "denoise": work.denoise, "release": work.release, "dit": system2.whole,
        "vae_spatial": lambda: policy.vae_encode(videos[0]),
        "vae_motion": lambda: policy.vae_encode(videos[1]),
    }  # fmt: skip
    if fused:  # the VAE is the same
        arms = {name: arms[name] for name in ("denoise", "release", "dit")}
    found: dict[str, Any] = {}
    for name, each in arms.items():
        launch = lane.capture(each)
        for _ in range(3):
            launch()
        lane.wait()
        with torch.no_grad():
            found[name] = profiled(launch, lane, context.out, name)
        context.keep(found)
        context.say(f"{name}: {found[name].get('kernels')} kernels")
    return found
