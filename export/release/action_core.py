"""The released action core (RDT with video tokens), with its key names.

Its weights depend on three peculiarities of their training code, marked "as released" below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from export.layers.blocks import NORM_EPS, attend, split_heads
from export.release.config import ReleaseConfig

FREQUENCIES = 256  # sinusoid features of a timestep or control frequency

KeyValue = tuple[Tensor, Tensor]
"""The keys and values that one block's cross-attention reads, each [B, heads, L, hd]."""


def unit_variance(x: Tensor) -> Tensor:
    """Divide x [..., D] by its standard deviation over the last axis; the shape stays.

    The mean is not subtracted.
    """
    # torch's `var` would export to twice as many nodes.
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return x / (variance + NORM_EPS).sqrt()


class VarianceNorm(nn.Module):
    """Divides by the standard deviation and multiplies by a learned weight.

    As released: timm 1.0.3's RmsNorm divides by the root of the unbiased variance, not by the root
    mean square, and subtracts no mean (`rms_norm` in timm/layers/fast_norm.py; later timm differs).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., D]; the shape stays."""
        return unit_variance(x) * self.weight


class Mlp(nn.Module):
    """Linear, GELU (tanh form), linear."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, L, D] to [B, L, outputs]."""
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    """Self-attention with queries and keys normalised per head."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = VarianceNorm(dim // heads)
        self.k_norm = VarianceNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens x [B, L, D]; the shape stays."""
        query, key, value = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))
        out: Tensor = self.proj(attend(self.q_norm(query), self.k_norm(key), value))
        return out


class CrossAttention(nn.Module):
    """Cross-attention to K/V that `keys_values` computes once for all solver steps."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.q_norm = VarianceNorm(dim // heads)
        self.k_norm = VarianceNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def keys_values(self, tokens: Tensor) -> Tensor:
        """Project tokens [B, L, D] to normalised keys and values [2, B, heads, L, hd].

        `forward` multiplies the queries by the weight of the keys' norm. The product is the same,
        and there are far fewer queries than keys.
        """
        key, value = (split_heads(y, self.heads) for y in self.kv(tokens).chunk(2, dim=-1))
        return torch.stack([unit_variance(key), value])

    def forward(self, x: Tensor, read: KeyValue, bias: Tensor | None) -> Tensor:
        """Read K/V with tokens x [B, L, D]; the shape stays. `bias` is added to the scores."""
        query = unit_variance(split_heads(self.q(x), self.heads))
        query = query * (self.q_norm.weight * self.k_norm.weight)
        out: Tensor = self.proj(attend(query, *read, bias))
        return out


class CoreBlock(nn.Module):
    """Self-attention, cross-attention to given K/V, feed-forward."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = VarianceNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = VarianceNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = VarianceNorm(dim)
        self.ffn = Mlp(dim, dim)

    def forward(self, x: Tensor, read: KeyValue, bias: Tensor | None) -> Tensor:
        """Update tokens x [B, L, D] from K/V; the shape stays. `bias` is added to the scores."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), read, bias)
        out: Tensor = x + self.ffn(self.norm3(x))
        return out


class ScalarEmbedder(nn.Module):
    """Embeds a timestep or a control frequency as one token."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, scalar: Tensor) -> Tensor:
        """Embed values [B], timesteps or Hz, as tokens [B, 1, D]."""
        half = FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=scalar.device)
        # The order of operations is as released: any other rounding grows at timesteps near 1000.
        angle = scalar[:, None] * torch.exp(-math.log(10_000) * steps / half)
        out: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return out.unsqueeze(1)


class FinalLayer(nn.Module):
    """The output norm and MLP."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = VarianceNorm(dim)
        self.ffn_final = Mlp(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Map tokens x [B, L, D] to [B, L, outputs]."""
        out: Tensor = self.ffn_final(self.norm_final(x))
        return out


def joined(*stacks: Tensor) -> list[KeyValue]:
    """Join the K/V of several sources, [blocks, 2, B, heads, L, hd] each, on the token axis.

    Returns one `KeyValue` per block.
    """
    pieces = zip(*(stack.flatten(0, 1).unbind(0) for stack in stacks), strict=True)
    reads = [torch.cat(parts, dim=2) for parts in pieces]
    return list(zip(reads[::2], reads[1::2], strict=True))


class ActionCore(nn.Module):
    """Predicts clean actions from noisy ones.

    Its tokens are timestep, control frequency, state and actions. Even blocks read language, odd
    blocks read image and video.
    """

    def __init__(self, config: ReleaseConfig) -> None:
        super().__init__()
        dim, heads = config.core.hidden_size, config.core.num_heads
        self.chunk = config.action_chunk
        self.t_embedder = ScalarEmbedder(dim)
        self.freq_embedder = ScalarEmbedder(dim)
        self.x_pos_embed = nn.Parameter(torch.zeros(1, 3 + self.chunk, dim))
        self.lang_cond_pos_embed = nn.Parameter(torch.zeros(1, config.max_lang_len, dim))
        self.img_cond_pos_embed = nn.Parameter(torch.zeros(1, config.image_tokens, dim))
        self.blocks = nn.ModuleList(CoreBlock(dim, heads) for _ in range(config.core.depth))
        self.final_layer = FinalLayer(dim, config.state_dim)

    def language_kv(self, tokens: Tensor) -> Tensor:
        """Project adapted language [B, L, D] to K/V [even blocks, 2, B, heads, L, hd]."""
        return self._keys_values(0, tokens + self.lang_cond_pos_embed[:, : tokens.shape[1]])

    def image_kv(self, tokens: Tensor) -> Tensor:
        """Project adapted image tokens [B, Ni, D] to K/V [odd blocks, 2, B, heads, Ni, hd]."""
        return self._keys_values(1, tokens + self.img_cond_pos_embed)

    def frame_kv(self, tokens: Tensor, slot: Tensor) -> Tensor:
        """Project one frame's tokens [B, N, D], of all cameras, to its part of `image_kv`.

        `slot` is its place in the history, int64 [1], where 0 is the oldest.
        """
        positions = self.img_cond_pos_embed.unflatten(1, (-1, tokens.shape[1]))
        return self._keys_values(1, tokens + positions.index_select(1, slot).squeeze(1))

    def video_kv(self, tokens: Tensor) -> Tensor:
        """Project condition tokens [B, Nv, D] to K/V [odd blocks, 2, B, heads, Nv, hd].

        As released, it adds no positions, although the checkpoint has `video_cond_pos_embed`.
        """
        return self._keys_values(1, tokens)

    def _keys_values(self, first: int, tokens: Tensor) -> Tensor:
        blocks: Iterable[Any] = self.blocks[first::2]
        return torch.stack([block.cross_attn.keys_values(tokens) for block in blocks])

    def forward(
        self,
        trajectory: Tensor,
        timestep: Tensor,
        ctrl_freq: Tensor,
        language: Sequence[KeyValue],
        visual: Sequence[KeyValue],
        lang_mask: Tensor,
    ) -> Tensor:
        """Predict the clean actions [B, K, state_dim].

        Args:
            trajectory: adapted state and noisy actions [B, 1 + K, D].
            timestep: [B], 0..999 of the training grid.
            ctrl_freq: [B], Hz.
            language: K/V for the even blocks, from `language_kv` and `joined`.
            visual: K/V for the odd blocks, from `image_kv`, `video_kv` and `joined`.
            lang_mask: [B, L], 1 for valid tokens, 0 for masked ones. As released, it is added to
                the scores, so masked tokens still count, with a weight e times smaller.
        """
        x = torch.cat([self.t_embedder(timestep), self.freq_embedder(ctrl_freq), trajectory], dim=1)
        x = x + self.x_pos_embed
        reads = ((language, lang_mask[:, None, None]), (visual, None))
        for index, block in enumerate(self.blocks):
            source, bias = reads[index % 2]
            x = block(x, source[index // 2], bias)
        out: Tensor = self.final_layer(x)[:, -self.chunk :]
        return out
