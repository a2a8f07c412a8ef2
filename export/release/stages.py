"""The stages that a golden folder records, as graphs over its tensor names."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from export.pipeline.split import Graph
from export.release.config import ReleaseConfig
from export.release.filters import MOTION, SPATIAL, stream_filter
from export.release.policy import ReleasedPolicy

_P = ReleasedPolicy
_TOKENS = (
    "in.noise", "in.state", "in.action_mask", "in.ctrl_freq", "in.lang_tokens", "in.lang_mask",
    "in.img_tokens", "cond.video_tokens",
)  # fmt: skip


def _step_t500(policy: ReleasedPolicy, *tokens: Tensor) -> Tensor:
    return policy.step(500.0, *tokens)


STAGES: tuple[Graph, ...] = (
    Graph("vae_spatial", "system2", _P.vae_encode, ("in.raw_video",), ("vae.raw_latent",)),
    Graph("vae_motion", "system2", _P.vae_encode, ("in.motion_video",), ("vae.motion_latent",)),
    Graph("vdm_spatial", "system2", _P.vdm_spatial, ("vae.raw_latent", "in.wan_text"),
          ("vdm.raw_features",)),
    Graph("vdm_motion", "system2", _P.vdm_motion, ("vae.motion_latent", "in.wan_text"),
          ("vdm.motion_features",)),
    Graph("condition", "system2", _P.condition, ("vdm.raw_features", "vdm.motion_features"),
          ("cond.video_tokens",)),
    Graph("step_t500", "denoise", _step_t500, _TOKENS, ("dit.step_t500",)),
    Graph("denoise", "denoise", _P.denoise, _TOKENS, ("out.action",)),
    Graph("solver_grid", "denoise", _P.solver_grid, (), ("sched.timesteps", "sched.sigmas")),
)  # fmt: skip
"""Each stage runs on golden tensors, so that an error shows in the stage that causes it."""


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a graph: input -> golden tensor, and output -> expected golden tensor."""

    feeds: Mapping[str, str]
    results: Mapping[str, str]


def runs_of(graph: Graph) -> list[Run]:
    """Return the runs of a graph. The sampler runs twice, once with half of the language masked."""
    feeds = {key: key for key in graph.inputs}
    runs = [Run(feeds, {key: key for key in graph.outputs})]
    if graph.name == "denoise":
        half = feeds | {"in.lang_mask": "in.lang_half_mask"}
        runs.append(Run(half, {"out.action": "out.action_lang_half_masked"}))
    return runs


FILTER_INPUT = dict.fromkeys(SPATIAL, "vae.raw_latent") | dict.fromkeys(MOTION, "vae.motion_latent")


def filter_stages(config: ReleaseConfig, tensors: Mapping[str, Tensor]) -> Iterator[Graph]:
    """Yield a stage for each `filter.NAME` in the folder, even if the policy does not use it.

    A filter's input and output have shape [1, C, T, h, w].
    """
    for name, source in FILTER_INPUT.items():
        if f"filter.{name}" in tensors and source in tensors:
            keep = stream_filter(name, tensors[source].shape[2], config)
            yield Graph(
                f"filter_{name}", "system2", lambda _, maps, keep=keep: keep(maps), (source,),
                (f"filter.{name}",),
            )  # fmt: skip


def language_masks(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the two masks [1, L] that golden folders do not contain.

    One has all tokens valid, the other has the second half masked.
    """
    if "in.lang_tokens" not in tensors:
        return {}
    tokens = tensors["in.lang_tokens"].shape[1]
    half = torch.ones(1, tokens)
    half[:, tokens // 2 :] = 0.0
    return {"in.lang_mask": torch.ones(1, tokens), "in.lang_half_mask": half}


def input_shapes(config: ReleaseConfig, tensors: Mapping[str, Tensor]) -> dict[str, list[int]]:
    """Return the expected shape of every stage input. Texts keep their own length."""
    raw, motion, state = config.raw_stream, config.motion_stream, config.state_dim
    channels, features = config.wan.in_dim, config.wan.dim

    def length(key: str) -> int:
        return tensors[key].shape[1] if key in tensors and tensors[key].dim() > 1 else 1

    return {
        "in.raw_video": [1, 3, raw.num_frames, *raw.video_size],
        "in.motion_video": [1, 3, motion.num_frames, *motion.video_size],
        "vae.raw_latent": [1, channels, raw.encoded_frames, *raw.latent_size],
        "vae.motion_latent": [1, channels, motion.encoded_frames, *motion.latent_size],
        "vdm.raw_features": [1, math.prod(raw.token_grid), features],
        "vdm.motion_features": [1, math.prod(motion.token_grid), features],
        "cond.video_tokens": [1, length("cond.video_tokens"), config.core.hidden_size],
        "in.wan_text": [1, length("in.wan_text"), config.wan.text_dim],
        "in.lang_tokens": [
            1, min(length("in.lang_tokens"), config.max_lang_len), config.lang_token_dim
        ],
        "in.lang_mask": [1, length("in.lang_tokens")],
        "in.img_tokens": [1, config.image_tokens, config.img_token_dim],
        "in.state": [1, 1, state],
        "in.action_mask": [1, 1, state],
        "in.noise": [1, config.action_chunk, state],
        "in.ctrl_freq": [1],
    }  # fmt: skip
