"""The released action core (RDT with video tokens), with its key names.

Its weights carry three habits of the libraries they were trained with, marked "as released" below.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from export.layers.blocks import NORM_EPS, attend, split_heads
from export.release.config import ReleaseConfig

FREQUENCIES = 256  # features of a timestep or control frequency before their MLP

KeyValue = tuple[Tensor, Tensor]
"""What one block's cross-attention reads: keys and values [B, heads, L, hd]."""


def unit_variance(x: Tensor) -> Tensor:
    """x / standard deviation over the last axis, the mean left in."""
    # Written out: torch's `var` exports to twice the nodes.
    centred = x - x.mean(-1, keepdim=True)
    variance = centred.square().sum(-1, keepdim=True) / (x.shape[-1] - 1)
    return x / (variance + NORM_EPS).sqrt()


class VarianceNorm(nn.Module):
    """x / standard deviation, times a learned weight.

    As released: timm 1.0.3's RmsNorm divides by the root of the unbiased variance, not by the root
    mean square, and subtracts no mean (`rms_norm` in timm/layers/fast_norm.py; later timm differs).
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        return unit_variance(x) * self.weight


class Mlp(nn.Module):
    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(dim, dim)
        self.act = nn.GELU(approximate="tanh")
        self.fc2 = nn.Linear(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.act(self.fc1(x)))
        return out


class SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = VarianceNorm(dim // heads)
        self.k_norm = VarianceNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))
        out: Tensor = self.proj(attend(self.q_norm(query), self.k_norm(key), value))
        return out


class CrossAttention(nn.Module):
    """Attention to keys and values that `keys_values` made before, once for all solver steps."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.kv = nn.Linear(dim, 2 * dim)
        self.q_norm = VarianceNorm(dim // heads)
        self.k_norm = VarianceNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def keys_values(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D] -> normalised keys and values [2, B, heads, L, hd].

        The weight of the keys' norm is the query's (`forward`): it meets the keys in a product
        only, and there are far fewer queries.
        """
        key, value = (split_heads(y, self.heads) for y in self.kv(tokens).chunk(2, dim=-1))
        return torch.stack([unit_variance(key), value])

    def forward(self, x: Tensor, read: KeyValue, bias: Tensor | None) -> Tensor:
        query = unit_variance(split_heads(self.q(x), self.heads))
        query = query * (self.q_norm.weight * self.k_norm.weight)
        out: Tensor = self.proj(attend(query, *read, bias))
        return out


class CoreBlock(nn.Module):
    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.norm1 = VarianceNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = VarianceNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = VarianceNorm(dim)
        self.ffn = Mlp(dim, dim)

    def forward(self, x: Tensor, read: KeyValue, bias: Tensor | None) -> Tensor:
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), read, bias)
        out: Tensor = x + self.ffn(self.norm3(x))
        return out


class ScalarEmbedder(nn.Module):
    """A timestep or a control frequency in Hz [B] -> one token [B, 1, D]."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, dim), nn.SiLU(), nn.Linear(dim, dim))

    def forward(self, scalar: Tensor) -> Tensor:
        half = FREQUENCIES // 2
        steps = torch.arange(half, dtype=torch.float32, device=scalar.device)
        # In this order of operations, as released: timesteps near 1000 enlarge any other rounding.
        angle = scalar[:, None] * torch.exp(-math.log(10_000) * steps / half)
        out: Tensor = self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1))
        return out.unsqueeze(1)


class FinalLayer(nn.Module):
    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.norm_final = VarianceNorm(dim)
        self.ffn_final = Mlp(dim, outputs)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.ffn_final(self.norm_final(x))
        return out


def joined(*stacks: Tensor) -> list[KeyValue]:
    """Stacks [blocks, 2, B, heads, L, hd] of several sources -> what each block reads of all."""
    pieces = zip(*(stack.flatten(0, 1).unbind(0) for stack in stacks), strict=True)
    reads = [torch.cat(parts, dim=2) for parts in pieces]
    return list(zip(reads[::2], reads[1::2], strict=True))


class ActionCore(nn.Module):
    """Denoiser of [timestep, control frequency, state, actions]; even blocks read language, odd
    blocks read image and video."""

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
        """Adapted language [B, L, D] -> [even blocks, 2, B, heads, L, hd]."""
        return self._keys_values(0, tokens + self.lang_cond_pos_embed[:, : tokens.shape[1]])

    def image_kv(self, tokens: Tensor) -> Tensor:
        """Adapted image tokens [B, Ni, D] -> [odd blocks, 2, B, heads, Ni, hd]."""
        return self._keys_values(1, tokens + self.img_cond_pos_embed)

    def frame_kv(self, tokens: Tensor, slot: Tensor) -> Tensor:
        """The part of `image_kv` that is one frame's: tokens [B, N, D] of all its cameras, and
        its place in the history, int64 [1], 0 the oldest."""
        positions = self.img_cond_pos_embed.unflatten(1, (-1, tokens.shape[1]))
        return self._keys_values(1, tokens + positions.index_select(1, slot).squeeze(1))

    def video_kv(self, tokens: Tensor) -> Tensor:
        """Condition tokens [B, Nv, D] -> [odd blocks, 2, B, heads, Nv, hd].

        As released: without positions, though the checkpoint has `video_cond_pos_embed`.
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
            language: from `language_kv`, `joined`; for the even blocks.
            visual: from `image_kv` and `video_kv`, `joined`; for the odd blocks.
            lang_mask: [B, L], 1 for valid tokens, 0 for masked ones. As released: it is added to
                the scores, so masked tokens are read too, with a weight e times smaller.
        """
        x = torch.cat([self.t_embedder(timestep), self.freq_embedder(ctrl_freq), trajectory], dim=1)
        x = x + self.x_pos_embed
        reads = ((language, lang_mask[:, None, None]), (visual, None))
        for index, block in enumerate(self.blocks):
            source, bias = reads[index % 2]
            x = block(x, source[index // 2], bias)
        out: Tensor = self.final_layer(x)[:, -self.chunk :]
        return out
