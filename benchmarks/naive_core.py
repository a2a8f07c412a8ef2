"""The released action core with the release's structure, which caches nothing between solver steps.

`rate_partition.py` compares with it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch._higher_order_ops.scan import scan

from export.layers.blocks import attend, split_heads
from export.pipeline.split import Graph
from export.release.policy import ReleasedPolicy


def naive_cross(attention: Any, x: Tensor, tokens: Tensor) -> Tensor:
    """Cross-attention that makes its keys and values itself, as released."""
    heads = attention.heads
    query = attention.q_norm(split_heads(attention.q(x), heads))
    key, value = attention.kv(tokens).unflatten(-1, (2, heads, -1)).permute(2, 0, 3, 1, 4)
    out: Tensor = attention.proj(attend(query, attention.k_norm(key), value))
    return out


def naive_core(core: Any, x: Tensor, t: Tensor, freq: Tensor, *tokens: Tensor) -> Tensor:
    """One call of the released core: `x` state and actions, `tokens` adapted language, images,
    video."""
    language, images, video = tokens
    x = torch.cat([core.t_embedder(t), core.freq_embedder(freq), x], dim=1) + core.x_pos_embed
    language = language + core.lang_cond_pos_embed[:, : language.shape[1]]
    visual = torch.cat([images + core.img_cond_pos_embed, video], dim=1)
    for index, block in enumerate(core.blocks):
        x = x + block.attn(block.norm1(x))
        x = x + naive_cross(block.cross_attn, block.norm2(x), (language, visual)[index % 2])
        x = x + block.ffn(block.norm3(x))
    out: Tensor = core.final_layer(x)[:, -core.chunk :]
    return out


def naive(
    policy: ReleasedPolicy,
    noise: Tensor,
    position_rad: Tensor,
    ctrl_freq: Tensor,
    lang_tokens: Tensor,
    image_tokens: Tensor,
    video_tokens: Tensor,
    timesteps: Tensor,
    weights: Tensor,
) -> Tensor:
    """A chunk as the release makes it; its loop is one, so no engine can join what is alike in its
    steps. `timesteps` [steps] and the solver's `weights` [steps, 3] are inputs, as they are there.
    """
    trained = policy.trained
    state, mask = policy.slots.to_state(position_rad[:, None])
    tokens = trained.lang_adaptor(lang_tokens), trained.img_adaptor(image_tokens), video_tokens

    def step(carry: tuple[Tensor, Tensor], this: tuple[Tensor, Tensor]) -> Any:
        x, before = carry
        timestep, weight = this
        trajectory = trained.adapt_state(torch.cat([state, x], dim=1), mask)
        x0 = naive_core(trained.model, trajectory, timestep[None], ctrl_freq, *tokens)
        x = weight[0] * x + weight[1] * x0 + weight[2] * before
        return (x, x0.clone(memory_format=torch.contiguous_format)), torch.zeros(1)

    (x, _), _ = scan(step, (noise, noise.clone()), (timesteps, weights))
    return policy.slots.to_joints(x * mask)


NAIVE_INPUTS = ("noise", "position_rad", "ctrl_freq", "lang_tokens", "image_tokens", "video_tokens",
                "timesteps", "weights")  # fmt: skip
NAIVE = Graph("naive", "denoise", naive, NAIVE_INPUTS, ("chunk_rad",))
