"""Splits this project's own policy by rate: one table of graphs and one of their tensors.

The exporter, the parity check and the manifest all read these tables.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from export.own.action_dit import STATE_TOKENS
from export.own.config import PolicyConfig
from export.own.image_encoder import STRIDE
from export.own.policy import Video2ActPolicy
from export.pipeline.config import Component
from export.pipeline.precision import STORED
from export.pipeline.split import Graph, Split
from v2a.bundle import TensorSpec

_P = Video2ActPolicy
_JOINTS = ("position_rad", "command_rad")

GRAPHS: tuple[Graph, ...] = (
    Graph("instruction", "instruction", _P.instruction, ("lang_tokens",), ("lang_kv", "text_kv")),
    Graph("frame_encode", "frame", _P.frame_encode, ("image",), ("image_tokens",)),
    Graph("vae_spatial", "system2", _P.vae_spatial, ("newest_frame",), ("latent_spatial",)),
    Graph("vae_motion", "system2", _P.vae_motion, ("clip",), ("latent_motion",)),
    Graph("vdm_spatial", "system2", _P.vdm_spatial, ("latent_spatial", "text_kv"),
          ("features_spatial",)),
    Graph("vdm_motion", "system2", _P.vdm_motion, ("latent_motion", "text_kv"),
          ("features_motion",)),
    Graph("condition", "system2", _P.condition, ("features_spatial", "features_motion"),
          ("video_kv", "register_kv")),
    Graph("observe", "observe", _P.observe,
          ("image_tokens", *_JOINTS, "condition_age_s", "register_kv"),
          ("image_kv", "state_tokens")),
    Graph("denoise", "denoise", _P.denoise,
          ("noise", "lang_kv", "video_kv", "image_kv", "state_tokens", "command_rad"),
          ("chunk_rad",)),
)  # fmt: skip
"""In running order: earlier graphs or the caller provide each graph's inputs."""

COMPONENT_OF: Mapping[str, Component] = {
    "vae_spatial": "vae",
    "vae_motion": "vae",
    "vdm_spatial": "dit",
    "vdm_motion": "dit",
}
"""The network whose precision a graph has. All graphs that are missing here have the core's;
`instruction` has weights of two networks."""


def tensor_specs(config: PolicyConfig) -> dict[str, TensorSpec]:
    """Return the spec of every graph input and output by key, with batch 1 and static shapes.

    The key is the tensor's name, except that `newest_frame` and `clip` are both named `frames`.
    K/V tensors, by far the largest, have the core's precision.
    """
    core, dit = config.core, config.dit
    height, width = config.image.height, config.image.width
    joints, chunk = len(config.joints), config.chunk
    frames = config.motion.frames
    patches = (height // STRIDE) * (width // STRIDE) + config.image_encoder.keypoints
    latent = config.vae.latent_channels
    grid = config.token_grid
    condition = 2 * config.former.tokens

    def kv(blocks: int, tokens: int, dim: int, heads: int) -> list[int]:
        return [blocks, 2, 1, heads, tokens, dim // heads]

    def core_kv(blocks: int, tokens: int) -> list[int]:
        return kv(blocks, tokens, core.dim, core.heads)

    language_blocks, visual_blocks = (core.blocks + 1) // 2, core.blocks // 2
    language = config.language.tokens
    text_kv = kv(dit.blocks, language, dit.dim, dit.heads)
    specs = (
        ("lang_tokens", [1, language, config.language.dim], "embedded instruction", None),
        ("lang_kv", core_kv(language_blocks, language), "language K/V of the action core", None),
        ("text_kv", text_kv, "text K/V of the video DiT", None),
        ("image_tokens", [1, patches, core.dim], "patches, then keypoints of one frame", None),
        ("latent_spatial", [1, latent, 1, *config.latent_size], "newest frame's latent", None),
        ("latent_motion", [1, latent, frames, *config.latent_size], "latents, oldest first", None),
        ("features_spatial", [1, 1, *grid, dit.dim], "boundary features", None),
        ("features_motion", [1, frames, *grid, dit.dim], "motion features", None),
        ("video_kv", core_kv(visual_blocks, condition), "condition K/V of the action core", None),
        ("register_kv", core_kv(core.register_blocks, condition), "condition K/V of the registers",
         None),
        ("position_rad", [1, joints], "measured joint positions", "rad"),
        ("command_rad", [1, joints], "last commanded joint positions", "rad"),
        ("condition_age_s", [1], "age of the condition's newest frame", "s"),
        ("image_kv", core_kv(visual_blocks, patches + core.registers),
         "image and register K/V of the action core", None),
        ("state_tokens", [1, STATE_TOKENS, core.dim], "joint state and condition age", None),
        ("noise", [1, chunk, joints], "standard normal", None),
        ("chunk_rad", [1, chunk, joints], "joint targets, step k is for capture + k * step_s",
         "rad"),
    )  # fmt: skip
    pixels = (
        ("image", "image", [1, height, width, 3], "current frame, RGB"),
        ("newest_frame", "frames", [1, 1, height, width, 3], "newest frame, RGB"),
        ("clip", "frames", [1, frames, height, width, 3], "motion clip, RGB, oldest first"),
    )
    table = {
        key: TensorSpec(name=name, dtype="uint8", shape=shape, meaning=meaning, unit=None)
        for key, name, shape, meaning in pixels
    }
    for name, shape, meaning, unit in specs:
        table[name] = TensorSpec(
            name=name,
            dtype=STORED[config.precision.core] if name.endswith("_kv") else "float32",
            shape=shape,
            meaning=meaning,
            unit=unit,
        )
    return table


def example_inputs(config: PolicyConfig, seed: int = 0) -> dict[str, Tensor]:
    """Return seeded tensors for every input that no graph computes, in the shapes of their specs.

    Joint positions lie within their limits and condition ages below the maximum.
    """
    generator = torch.Generator().manual_seed(seed)
    specs = tensor_specs(config)

    def normal(key: str) -> Tensor:
        """Draw standard normal values in the shape of the tensor's spec."""
        return torch.randn(specs[key].shape, generator=generator)

    clip = torch.randint(0, 256, specs["clip"].shape, generator=generator, dtype=torch.uint8)
    lower = torch.tensor([joint.lower_rad for joint in config.joints])
    upper = torch.tensor([joint.upper_rad for joint in config.joints])
    position = lower + (upper - lower) * torch.rand(
        specs["position_rad"].shape, generator=generator
    )
    return {
        "lang_tokens": normal("lang_tokens"),
        "image": torch.randint(0, 256, specs["image"].shape, generator=generator,
                               dtype=torch.uint8),
        "newest_frame": clip[:, -1:].contiguous(),
        "clip": clip,
        "position_rad": position,
        "command_rad": position + 0.02 * normal("command_rad"),
        "condition_age_s": torch.tensor([config.condition_age_max_s / 3]),
        "noise": normal("noise"),
    }  # fmt: skip


def split_of(policy: Video2ActPolicy) -> Split:
    """Split this project's own policy into graphs."""

    def plain(tensors: dict[str, Tensor]) -> Tensor:
        """Run the model without caches on the inputs by key. Returns chunk_rad [1, K, J]."""
        keys = ("clip", "image", "lang_tokens", *_JOINTS, "condition_age_s", "noise")
        chunk_rad: Tensor = policy(*(tensors[key] for key in keys))
        return chunk_rad

    config = policy.config
    chosen = config.precision.by_component()
    precision = {graph.name: chosen[COMPONENT_OF.get(graph.name, "core")] for graph in GRAPHS}
    return Split(policy, GRAPHS, tensor_specs(config), example_inputs(config), plain, precision)
