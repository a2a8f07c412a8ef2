"""Compares the released action core, split by rate, with the same core as one graph.

    python benchmarks/rate_partition.py [--json] [--quick]

`naive` does what the release does for a chunk: the adaptors once, then a loop over the solver's
steps. Each step computes the keys and values of language, images and video again, and the
embeddings of timestep and frequency. `split` does what the exported bundle does: the keys and
values of both frames, then the unrolled solver. Language and video change less often than chunks,
so they are cached. `critical` is the part of `split` that must wait for the newest frame. Neither
includes the image encoder.

The core has the release's structure, a quarter of its width, half of its depth and random weights.
All arms run in turn in one thread of one process. `floor` is `critical` against itself.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx_ir as ir
import torch
import yaml
from interleaved import interleaved, ratio
from naive_core import NAIVE
from torch import Tensor

from export.pipeline.onnx_from_torch import onnx_from_torch, save
from export.pipeline.split import Graph, Split, chain
from export.release.config import ReleaseConfig
from export.release.layout import ADAPTORS, Layout
from export.release.policy import ReleasedPolicy
from export.release.rates import split_of
from export.release.tensors import TextLengths
from runtime.engines import Engine, load
from v2a.bundle import TensorSpec

RELEASED = Path(__file__).parents[1] / "export" / "release" / "released.yaml"
QUARTER = {"core": {"hidden_size": 512, "depth": 14, "num_heads": 8}}
QUICK = {
    "core": {"hidden_size": 32, "depth": 4, "num_heads": 4},
    "action_chunk": 8,
    "patches_per_image": 6,
}
# The video model is in neither arm: small, but with the release's 1174 tokens.
VIDEO_MODEL = {
    "wan": {"dim": 24, "in_dim": 4, "ffn_dim": 24, "text_dim": 8, "freq_dim": 16, "num_heads": 2,
            "num_layers": 1},
    "wan_layers_used": 1,
    "vae": {"dim": 4},
}  # fmt: skip
TEXTS = TextLengths(lang=32, video=4)
PER_FRAME = ("frame_encode", "observe")
FLOAT_BYTES = 4

Tensors = dict[str, Tensor]


def random_policy(sizes: Mapping[str, Any]) -> ReleasedPolicy:
    released = yaml.safe_load(RELEASED.read_text(encoding="utf-8"))
    torch.manual_seed(0)
    policy = ReleasedPolicy(
        ReleaseConfig.model_validate(released | VIDEO_MODEL | sizes), Layout(ADAPTORS)
    )
    for parameter in policy.parameters():  # positions start as zeros
        parameter.data += 0.02 * torch.randn_like(parameter)
    return policy.eval().requires_grad_(False)


@torch.no_grad()
def tensors_of(split: Split, policy: ReleasedPolicy) -> Tensors:
    """Inputs of both arms by key; zeros for what the graphs of a chunk make themselves."""
    trained, solver = policy.trained, policy.trained.solver
    blank = {key: torch.zeros(spec.shape) for key, spec in split.specs.items()}
    known = chain(policy, split.inputs, [g for g in split.graphs if g.name == "instruction"])
    generator = torch.Generator().manual_seed(1)
    dim = policy.config.core.hidden_size
    video_tokens = torch.randn(1, trained.condition_tokens, dim, generator=generator)
    frames = [known[f"image_tokens_{slot}"] for slot in range(policy.config.img_history)]
    made = {
        "prefix_mask": torch.zeros_like(known["prefix_mask"]),  # no action is decided before
        "video_tokens": video_tokens,
        "video_kv": trained.model.video_kv(video_tokens),
        "image_tokens": torch.cat(frames, dim=1),
        "ctrl_freq": torch.tensor([policy.config.ctrl_freq]),
        "timesteps": torch.tensor([float(step.timestep) for step in solver]),
        "weights": torch.tensor([(s.sample, s.predicted, s.previous) for s in solver]),
    }
    return blank | known | made


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of matrix products, and the bytes that they read and write."""

    flops: int = 0
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes)


def cost_of(graph: ir.Graph, runs: int = 1) -> Cost:
    """Of all products in `runs` runs of a graph; what is in a loop counts each time."""
    total = Cost()
    for node in graph:
        if node.op_type == "Scan":
            body, steps = node.attributes["body"].as_graph(), _shape(node.inputs[-1])[0]
            total += cost_of(body, runs * steps)
        elif node.op_type in ("MatMul", "Gemm"):
            left, right, out = map(_shape, (*node.inputs[:2], node.outputs[0]))
            moved = sum(math.prod(shape) for shape in (left, right, out))
            total += Cost(2 * runs * math.prod(out) * left[-1], FLOAT_BYTES * runs * moved)
    return total


def _shape(value: ir.Value | None) -> tuple[int, ...]:
    assert value is not None
    assert value.shape is not None, f"{value.name}: no shape was inferred"
    return tuple(value.shape.numpy())


@dataclass(frozen=True, slots=True)
class Loaded:
    """An exported graph in the engine, and what one run of it costs."""

    engine: Engine
    cost: Cost


def loaded(
    policy: ReleasedPolicy,
    graph: Graph,
    known: Mapping[str, TensorSpec],
    tensors: dict[str, Tensor],
) -> Loaded:
    """`graph` through the exporter into ONNX Runtime, one thread."""
    spec = graph.spec(known, f"{graph.name}.onnx")
    with tempfile.TemporaryDirectory() as folder:
        model = onnx_from_torch(policy, graph, known, tensors)
        cost = cost_of(model.graph)
        save(model, Path(folder) / spec.file)
        return Loaded(load(spec, Path(folder) / spec.file), cost)


def measure(sizes: Mapping[str, Any], rounds: int) -> dict[str, Any]:
    """Medians in ms, FLOPs and bytes of a chunk, ratios with their 95 % intervals."""
    policy = random_policy(sizes)
    split = split_of(policy, TEXTS, {})
    tensors = tensors_of(split, policy)
    specs = dict(split.specs) | {
        key: TensorSpec(name=key, dtype="float32", shape=list(tensors[key].shape), meaning=key)
        for key in NAIVE.inputs
    }
    rows = {graph.name: graph for graph in split.graphs}
    graphs = {name: loaded(policy, rows[name], specs, tensors) for name in (*PER_FRAME, "denoise")}
    whole = loaded(policy, NAIVE, specs, tensors)
    arrays = {key: value.numpy() for key, value in tensors.items()}
    older, newest = range(policy.config.img_history)

    def frame(slot: int) -> None:
        image = {"image_tokens": arrays[f"image_tokens_{slot}"]}
        made = graphs["frame_encode"].engine.run(image)
        made = graphs["observe"].engine.run({**made, "slot": arrays[f"slot_{slot}"]})
        arrays[f"image_kv_{slot}"] = made["image_kv"]

    def chunk(loaded: Loaded, graph: Graph) -> npt.NDArray[Any]:
        names = graph.specs(specs)
        chunk_rad: npt.NDArray[Any] = loaded.engine.run(
            {names[key].name: arrays[key] for key in graph.inputs}
        )["chunk_rad"]
        return chunk_rad

    def critical() -> npt.NDArray[Any]:
        frame(newest)
        return chunk(graphs["denoise"], rows["denoise"])

    frame(older)
    error = float(np.abs(critical() - chunk(whole, NAIVE)).max())
    arms = {
        "naive": lambda: chunk(whole, NAIVE),
        "older": lambda: frame(older),
        "critical": critical,
        "again": critical,
    }
    times = interleaved(arms, rounds, warm_up=2)
    times["split"] = times["older"] + times["critical"]
    per_frame = graphs["frame_encode"].cost + graphs["observe"].cost
    on_path = per_frame + graphs["denoise"].cost
    costs = {"naive": whole.cost, "split": on_path + per_frame, "critical": on_path}
    speedup, critical_speedup = (ratio(times, "naive", arm) for arm in ("split", "critical"))
    return {
        "speedup": speedup["ratio"],
        "critical_speedup": critical_speedup["ratio"],
        "max_abs_error": error,
        **{f"{arm}_ms": float(np.median(times[arm])) / 1e6 for arm in costs},
        **{f"{arm}_flops": cost.flops for arm, cost in costs.items()},
        **{f"{arm}_bytes": cost.bytes for arm, cost in costs.items()},
        "rounds": rounds,
        "speedup_95": speedup,
        "critical_speedup_95": critical_speedup,
        "floor_95": ratio(times, "again", "critical"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--quick", action="store_true", help="tiny sizes, to see that it works")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = measure(QUICK if arguments.quick else QUARTER, arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
        return
    for arm in ("naive", "split", "critical"):
        flops, size_bytes = found[f"{arm}_flops"], found[f"{arm}_bytes"]
        print(f"{arm:<9}{found[f'{arm}_ms']:9.1f} ms {flops / 1e9:8.1f} GFLOP "
              f"{size_bytes / 1e9:6.2f} GB in products")  # fmt: skip
    for name in ("speedup", "critical_speedup", "floor"):
        row = found[f"{name}_95"]
        print(f"{name:<17}{row['ratio']:6.3f}  (95 %: {row['low']:.3f} to {row['high']:.3f})")
    print(f"chunks differ by {found['max_abs_error']:.1e}")


if __name__ == "__main__":
    main()
