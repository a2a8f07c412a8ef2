"""Splits a released policy by rate into graphs, and lists the tensors between them.

We cache a frame's tokens, not its keys and values: those are 2 x blocks as large. `frame_encode`
makes the tokens once per frame. `observe` makes K/V from them for one place in the history, so an
older frame's K/V are ready before the newest frame arrives. From the newest frame to a chunk only
its tokens, its K/V and the solver remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial

import torch
from torch import Tensor

from export.layers.blocks import pixels_to_unit
from export.pipeline.config import FULL, Component, Precisions
from export.pipeline.split import Graph, Split
from export.release.action_core import joined
from export.release.config import Channels, ReleaseConfig
from export.release.policy import ReleasedPolicy
from export.release.tensors import Sizes, TextLengths, tensor_specs
from export.release.trained import Prefix
from v2a.bundle import TensorSpec

COMPONENT_OF: Mapping[str, Component] = {
    "instruction": "core",
    "instruction_video": "dit",
    "frame_encode": "core",
    "vae_spatial": "vae",
    "vae_motion": "vae",
    "vdm_spatial": "dit",
    "vdm_motion": "dit",
    "condition": "core",
    "observe": "core",
    "denoise": "core",
}
"""Graph -> the network that its weights belong to. A network has one precision."""

PADDED = -1e4
"""Added to the scores of padding tokens, which makes their weight exactly 0."""


def _instruction(policy: ReleasedPolicy, lang_tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Project T5 tokens [1, L, Dl], padded with zeros, to K/V and the bias of scores [1, L]."""
    padding = (lang_tokens.abs().amax(-1) == 0).to(lang_tokens.dtype)
    return policy.trained.language_kv(lang_tokens), padding * PADDED


def _instruction_video(policy: ReleasedPolicy, text_tokens: Tensor) -> Tensor:
    return policy.dit.text_kv(text_tokens)


def _frame_encode(policy: ReleasedPolicy, frame: Tensor) -> Tensor:
    """Encode one frame of all cameras as tokens [1, N, D].

    The frame is uint8 [1, cameras, H, W, 3], or image tokens [1, N, Di] if the policy has no image
    encoder.
    """
    tokens: Tensor = policy.trained.img_adaptor(_image_tokens(policy, frame))
    return tokens


def _image_tokens(policy: ReleasedPolicy, frame: Tensor) -> Tensor:
    return frame if policy.image_encoder is None else policy.image_encoder(frame)


def _video(order: list[int], frames: Tensor) -> Tensor:
    """Convert RGB frames, uint8 [1, T, H, W, 3], to video [1, 3, T, H, W] in -1..1.

    `order` gives the channels of the video.
    """
    return pixels_to_unit(frames)[..., order].permute(0, 4, 1, 2, 3)


def _vae(order: list[int], policy: ReleasedPolicy, frames: Tensor) -> Tensor:
    return policy.vae_encode(_video(order, frames))


def _vdm_spatial(policy: ReleasedPolicy, latent: Tensor, text_kv: Tensor) -> Tensor:
    return policy.features(policy.raw, latent, text_kv)


def _vdm_motion(policy: ReleasedPolicy, latents: Tensor, text_kv: Tensor) -> Tensor:
    return policy.features(policy.motion, latents, text_kv)


def _condition(policy: ReleasedPolicy, raw: Tensor, motion: Tensor) -> Tensor:
    return policy.trained.model.video_kv(policy.condition(raw, motion))


def _observe(policy: ReleasedPolicy, frame_tokens: Tensor, slot: Tensor) -> Tensor:
    return policy.trained.model.frame_kv(frame_tokens, slot)


def _denoise(
    policy: ReleasedPolicy,
    noise: Tensor,
    position_rad: Tensor,
    lang_kv: Tensor,
    lang_bias: Tensor,
    video_kv: Tensor,
    prefix: Tensor,
    prefix_mask: Tensor,
    *image_kv: Tensor,
) -> Tensor:
    state, action_mask = policy.slots.to_state(position_rad[:, None])
    actions = policy.trained.sample(
        noise, policy.trained.adapt_state(state, action_mask), action_mask,
        torch.tensor([policy.config.ctrl_freq]), joined(lang_kv), joined(*image_kv, video_kv),
        lang_bias, Prefix(prefix, prefix_mask),
    )  # fmt: skip
    return policy.slots.to_joints(actions)


CHANNELS: Mapping[Channels, list[int]] = {"rgb": [0, 1, 2], "bgr": [2, 1, 0]}
"""The order of an image's channels for the VAE. The release reverses them, in training and on the
robot (`to_rgb_array_for_vae` in its `scripts/agilex_model.py`)."""


def graphs_of(
    config: ReleaseConfig, image: str = "image_tokens", channels: Channels = "bgr"
) -> tuple[Graph, ...]:
    """Return one row per run of a graph, in running order.

    `frame_encode` and `observe` run once per frame of the history, oldest first. `image` names the
    input of `frame_encode`: `image` or `image_tokens`.
    """
    vae = partial(_vae, CHANNELS[channels])
    slots = range(config.img_history)
    image_kv = tuple(f"image_kv_{slot}" for slot in slots)
    return (
        Graph("instruction", "instruction", _instruction, ("lang_tokens",),
              ("lang_kv", "lang_bias")),
        Graph("instruction_video", "instruction", _instruction_video, ("text_tokens",),
              ("text_kv",)),
        Graph("vae_spatial", "system2", vae, ("frames_spatial",), ("latent_spatial",)),
        Graph("vae_motion", "system2", vae, ("frames_motion",), ("latent_motion",)),
        Graph("vdm_spatial", "system2", _vdm_spatial, ("latent_spatial", "text_kv"),
              ("features_spatial",)),
        Graph("vdm_motion", "system2", _vdm_motion, ("latent_motion", "text_kv"),
              ("features_motion",)),
        Graph("condition", "system2", _condition, ("features_spatial", "features_motion"),
              ("video_kv",)),
        *(Graph("frame_encode", "frame", _frame_encode, (f"{image}_{slot}",),
                (f"frame_tokens_{slot}",),
                {f"{image}_{slot}": image, f"frame_tokens_{slot}": "frame_tokens"})
          for slot in slots),
        *(Graph("observe", "observe", _observe, (f"frame_tokens_{slot}", f"slot_{slot}"),
                (image_kv[slot],),
                {f"frame_tokens_{slot}": "frame_tokens", f"slot_{slot}": "slot",
                 image_kv[slot]: "image_kv"})
          for slot in slots),
        Graph("denoise", "denoise", _denoise,
              ("noise", "position_rad", "lang_kv", "lang_bias", "video_kv", "prefix", "prefix_mask",
               *image_kv), ("chunk_rad",)),
    )  # fmt: skip


def example_inputs(specs: Mapping[str, TensorSpec], graphs: Sequence[Graph]) -> dict[str, Tensor]:
    """Return seeded tensors for every input that no graph computes, in the shapes of their specs.

    The first half of the prefix mask is 1.
    """
    generator = torch.Generator().manual_seed(0)
    made = {key for graph in graphs for key in graph.outputs}
    inputs = {}
    for key in (key for graph in graphs for key in graph.inputs if key not in made):
        spec = specs[key]
        if spec.dtype == "uint8":
            inputs[key] = torch.randint(0, 256, spec.shape, generator=generator, dtype=torch.uint8)
        else:
            inputs[key] = torch.randn(spec.shape, generator=generator)
    steps = specs["prefix_mask"].shape[1]
    inputs["prefix_mask"] = (torch.arange(steps) < steps // 2).float()[None, :, None]
    slots = [key for key in inputs if key.startswith("slot_")]
    return inputs | {key: torch.tensor([slot]) for slot, key in enumerate(slots)}


def split_of(
    policy: ReleasedPolicy, texts: TextLengths, precision: Precisions, channels: Channels = "bgr"
) -> Split:
    """Split a released policy into graphs for the exporter."""
    encoder = policy.image_encoder
    graphs = graphs_of(policy.config, "image" if encoder else "image_tokens", channels)
    sizes = Sizes(texts, policy.trained.condition_tokens, encoder.size if encoder else 0)
    specs = tensor_specs(policy.config, sizes, precision)
    return Split(
        policy,
        graphs,
        specs,
        example_inputs(specs, graphs),
        partial(_plain, policy, channels),
        {name: precision.get(part, FULL) for name, part in COMPONENT_OF.items()},
    )


def _plain(policy: ReleasedPolicy, channels: Channels, tensors: dict[str, Tensor]) -> Tensor:
    """Run the whole policy without caches on the graphs' inputs. Instructions have no padding."""
    state, action_mask = policy.slots.to_state(tensors["position_rad"][:, None])
    image = "image" if policy.image_encoder else "image_tokens"
    images = [
        _image_tokens(policy, tensors[f"{image}_{slot}"])
        for slot in range(policy.config.img_history)
    ]
    raw, motion = (
        _video(CHANNELS[channels], tensors[f"frames_{k}"]) for k in ("spatial", "motion")
    )
    actions = policy(
        raw, motion, tensors["text_tokens"], tensors["noise"], state, action_mask,
        torch.tensor([policy.config.ctrl_freq]), tensors["lang_tokens"],
        torch.ones(tensors["lang_tokens"].shape[:2]), torch.cat(images, dim=1),
        Prefix(tensors["prefix"], tensors["prefix_mask"]),
    )  # fmt: skip
    return policy.slots.to_joints(actions)
