"""A sealed bundle from a trained policy: graphs, instruction embeddings, parity, manifest."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import numpy as np
from torch import Tensor

from export.checkpoints import Checkpoint
from export.models.config import PolicyConfig
from export.models.policy import Video2ActPolicy
from export.onnx_from_torch import onnx_from_torch, save
from export.parity import chain_error, graph_error
from export.rates import GRAPHS, Graph, chain, example_inputs, tensor_specs
from runtime.engines import load
from v2a.bundle import (
    MANIFEST,
    ActionSpace,
    CameraSpec,
    FileRef,
    GraphSpec,
    JointSpec,
    Manifest,
    SamplerSpec,
    seal,
)
from v2a.errors import BundleError

CHAIN = "whole_chain"
_RECORDED = ("torch", "onnx", "onnxscript", "onnxruntime", "numpy")

Report = Callable[[str], None]


def bundle_from_policy(checkpoint: Checkpoint, out: Path, report: Report) -> Manifest:
    """Export every graph, check its parity and write a sealed bundle to `out`.

    `report` gets a line a graph. `out` is replaced as a whole, and only by a finished bundle.
    Raises BundleError when a graph misses parity, or `out` is something else than a bundle.
    """
    _refuse_foreign(out)
    draft = out.with_name(out.name + ".part")
    shutil.rmtree(draft, ignore_errors=True)
    (draft / "graphs").mkdir(parents=True)
    manifest = _write(checkpoint, draft, report)
    shutil.rmtree(out, ignore_errors=True)
    draft.rename(out)
    return manifest


def _refuse_foreign(out: Path) -> None:
    if out.exists() and not (out / MANIFEST).is_file():
        raise BundleError(f"{out}: exists and is not a bundle; remove it or choose another place")


def _write(checkpoint: Checkpoint, folder: Path, report: Report) -> Manifest:
    policy = checkpoint.policy
    inputs = example_inputs(policy.config)
    tensors = chain(policy, inputs)
    specs: list[GraphSpec] = []
    parity: dict[str, float] = {}
    for graph in GRAPHS:
        spec = _export(policy, graph, folder, tensors)
        with load(spec, folder / spec.file) as engine:
            parity[graph.name] = graph_error(policy, graph, engine, tensors)
        specs.append(spec)
        report(_line(graph.name, (folder / spec.file).stat().st_size, parity[graph.name]))
    parity[CHAIN] = chain_error(policy, specs, folder, inputs)
    size = sum((folder / spec.file).stat().st_size for spec in specs)
    report(_line(CHAIN, size, parity[CHAIN]))
    instructions = _write_instructions(checkpoint.instructions, folder)
    manifest = _manifest(policy.config, specs, instructions, checkpoint.sha256, parity)
    seal(folder, manifest)
    return manifest


def _line(name: str, size_bytes: int, error: float) -> str:
    return f"{name:<13} {size_bytes / 1024:8.0f} KiB  max |onnx - torch| {error:.1e}"


def _export(
    policy: Video2ActPolicy, graph: Graph, folder: Path, tensors: dict[str, Tensor]
) -> GraphSpec:
    specs = tensor_specs(policy.config)
    spec = GraphSpec(
        name=graph.name,
        rate=graph.rate,
        file=f"graphs/{graph.name}.onnx",
        inputs=[specs[key] for key in graph.inputs],
        outputs=[specs[key] for key in graph.outputs],
    )
    save(onnx_from_torch(policy, graph, specs, tensors), folder / spec.file)
    return spec


def _write_instructions(instructions: dict[str, Tensor], folder: Path) -> dict[str, FileRef]:
    (folder / "embeddings").mkdir()
    files = {}
    for index, (text, tokens) in enumerate(instructions.items()):
        files[text] = FileRef(file=f"embeddings/{index}.npy")
        np.save(folder / files[text].file, tokens[None].numpy())
    return files


def _manifest(
    config: PolicyConfig,
    graphs: list[GraphSpec],
    instructions: dict[str, FileRef],
    checkpoint_sha256: str,
    parity: dict[str, float],
) -> Manifest:
    joints = [
        JointSpec(name=joint.name, lower=joint.lower_rad, upper=joint.upper_rad,
                  velocity_limit=joint.velocity_limit_rad_s)
        for joint in config.joints
    ]  # fmt: skip
    camera = CameraSpec(
        name=config.image.camera, width=config.image.width, height=config.image.height,
        history=config.motion.frames, interval_s=1.0 / config.motion.fps,
    )  # fmt: skip
    return Manifest(
        policy=config.name,
        description=config.description,
        graphs=graphs,
        action_space=ActionSpace(joints=joints, chunk_length=config.chunk, step_s=config.step_s),
        cameras=[camera],
        sampler=SamplerSpec(steps=config.sampler.steps),
        instructions=instructions,
        condition_age_max_s=config.condition_age_max_s,
        provenance={
            "checkpoint_sha256": checkpoint_sha256,
            "parity": parity,
            "versions": {name: version(name) for name in _RECORDED}
            | {"python": platform.python_version()},
            "config": config.model_dump(mode="json"),
        },
    )
