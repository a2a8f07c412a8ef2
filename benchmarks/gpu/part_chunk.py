"""Part c: compares a chunk and a condition of the released size with the release's own code.

Both arms have the same weights, PyTorch in bfloat16, fused attention and one CUDA graph each.
`release_eager` launches the release's chunk kernel by kernel, as its own code does.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from interleaved import interleaved, ratio

from gpu.device import Lane, Launch, Work
from gpu.machine import Context
from gpu.released import Chunk, bounds, config_of, random_policy
from gpu.system2 import System2


def _waited(launch: Launch, lane: Lane) -> Callable[[], None]:
    def run() -> None:
        launch()
        lane.wait()

    return run


def _measured(arms: dict[str, Callable[[], None]], rounds: int, over: str, under: str) -> Any:
    """Medians, and the ratio of two arms beside that of an arm to itself (`again`)."""
    times = interleaved({**arms, "again": arms[under]}, rounds, warm_up=3)
    spread = {
        name: [float(x) / 1e6 for x in np.quantile(t, [0.05, 0.95])] for name, t in times.items()
    }
    return {
        "ms": {name: float(np.median(taken)) / 1e6 for name, taken in times.items()},
        "ms_5_95": spread,
        "ratio": ratio(times, over, under), "floor": ratio(times, "again", under),
        "rounds": rounds,
    }  # fmt: skip


@torch.no_grad()
def _difference(first: torch.Tensor, second: torch.Tensor) -> dict[str, float]:
    gap = (first.float() - second.float()).abs()
    return {"max_abs": float(gap.max()), "largest": float(second.float().abs().max())}


def chunk(context: Context, compiled: bool = False) -> dict[str, Any]:
    """One chunk. `compiled`: both arms with their blocks through torch.compile."""
    device, lane = context.device, context.device.lane()
    config = config_of(context.rehearse)
    work = Chunk(random_policy(config, device), device, compiled)
    device.synchronize()
    context.say("weights are made")
    with torch.no_grad(), lane.here():
        same = _difference(work.ours(), work.release())
        critical = _difference(work.critical(), work.ours())
    lane.wait()
    context.say(f"ours against the release: {same}")
    arms: dict[str, Work] = {
        "release": work.release, "ours": work.ours, "critical": work.critical,
        "denoise": work.denoise,
    }  # fmt: skip
    runs = {name: _waited(lane.capture(each), lane) for name, each in arms.items()}
    if not compiled:
        runs["release_eager"] = _waited(lane.eager(work.release), lane)
    runs["observe"] = _waited(lane.capture(lambda: work.frame(1)), lane)
    context.say("captured")
    rounds = 60 if device.is_gpu else 3
    found = _measured(runs, rounds, "release", "ours")
    return {
        "chunk": found, "ours_against_release": same, "critical_against_ours": critical,
        "image_encoder": "in neither arm", "peak_gib": device.peak_gib(), "factor": 1,
        "compiled": dict(torch._dynamo.utils.counters["stats"]) if compiled else None,
    }  # fmt: skip


def condition(context: Context) -> dict[str, Any]:
    """One condition, and each of its graphs; the bounds of every graph at the rates of part m."""
    device, lane = context.device, context.device.lane()
    config = config_of(context.rehearse)
    policy = random_policy(config, device)
    full = System2(policy, device, with_vae=True)
    context.say("weights are made")

    def release() -> Any:
        latents = [policy.vae_encode(video) for video in full.videos]
        features = (
            policy.vdm_spatial(latents[0], full.text),
            policy.vdm_motion(latents[1], full.text),
        )
        return policy.condition(*features)

    raw, motion = full.latents
    features = [
        device.random(1, tokens, config.wan.dim)
        for tokens in (_tokens(config.raw_stream), _tokens(config.motion_stream))
    ]
    arms: dict[str, Work] = {
        "release": release, "ours": full.whole,
        "instruction_video": lambda: policy.dit.text_kv(full.text),
        "vae_spatial": lambda: policy.vae_encode(full.videos[0]),
        "vae_motion": lambda: policy.vae_encode(full.videos[1]),
        "vdm_spatial": lambda: policy.features(policy.raw, raw, full.text_kv),
        "vdm_motion": lambda: policy.features(policy.motion, motion, full.text_kv),
        "condition": lambda: policy.trained.model.video_kv(policy.condition(*features)),
    }  # fmt: skip
    runs, failed = {}, {}
    for name, each in arms.items():
        try:
            runs[name] = _waited(lane.capture(each), lane)
        except RuntimeError as fault:
            failed[name] = str(fault)[:300]
        context.say(f"captured {name}")
    same = None
    if "ours" in runs:
        runs["ours"]()
        same = _difference(full.values["video_kv"], full.plain())
    found = _measured(runs, 20 if device.is_gpu else 3, "release", "ours")
    return {
        "condition": found, "steps_against_policy": same, "failed": failed,
        "peak_gib": device.peak_gib(), "bounds": _bounds(context),
    }  # fmt: skip


def _tokens(stream: Any) -> int:
    return int(np.prod(stream.token_grid))


def _bounds(context: Context) -> dict[str, Any]:
    """By the copy and product rates of part m; empty where it has not run."""
    file = context.out / "rates.json"
    if not file.is_file():
        print("rates.json is not there: no bounds", file=sys.stderr)
        return {}
    rates = json.loads(file.read_text(encoding="utf-8"))["found"]
    copy, product = rates["copy"]["gb_s"] * 1e9, rates["gemm_bf16"]["tflop_s"] * 1e12
    return bounds(config_of(context.rehearse), copy, product)
