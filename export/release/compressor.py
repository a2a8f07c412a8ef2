"""The release's token compressor: a perceiver, with or without attention over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import attend, mlp, split_heads
from export.release.layout import HEAD_DIM, CompressorLayout


class PerceiverAttention(nn.Module):
    """Latents [N, Q, D] read features [N, L, D] and themselves."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        inner = HEAD_DIM * heads
        self.heads = heads
        self.norm_media = nn.LayerNorm(dim)
        self.norm_latents = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_k = nn.Linear(dim, inner, bias=False)
        self.to_v = nn.Linear(dim, inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, features: Tensor, latents: Tensor) -> Tensor:
        latents = self.norm_latents(latents)
        read = torch.cat([self.norm_media(features), latents], dim=1)
        projected = (self.to_q(latents), self.to_k(read), self.to_v(read))
        out: Tensor = self.to_out(attend(*(split_heads(x, self.heads) for x in projected)))
        return out


class TemporalAttention(nn.Module):
    """Each latent [N, T, D] reads itself in the other frames.

    The release adds a mask of ones to the scores, which changes no softmax and is left out.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        parts = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))
        out: Tensor = self.proj(attend(*parts))
        return out


class CompressorLayer(nn.ModuleList):
    """Perceiver attention, attention over time if there is one, feed-forward: a list, since the
    released key names number them."""

    def forward(self, read: Tensor, latents: Tensor) -> Tensor:
        attention, *temporal, feed_forward = self
        x = latents + attention(read, latents)
        for over_time in temporal:
            x = x + over_time(x.transpose(0, 1)).transpose(0, 1)
        out: Tensor = x + feed_forward(x)
        return out


def feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(nn.LayerNorm(dim), *mlp(dim, 4 * dim, dim))


class TokenCompressor(nn.Module):
    """Features [1, T * N, D] of the video DiT -> tokens [1, frames * tokens, dim]; batch 1.

    With no layers (the release's template) the tokens are constants: they tell of no video.
    """

    def __init__(self, layout: CompressorLayout, features: int) -> None:
        super().__init__()
        dim, heads = layout.dim, layout.heads
        self.frames = layout.frames
        self.goal_emb = mlp(features, 2 * dim, dim)
        self.latents = nn.Parameter(torch.randn(layout.frames, layout.tokens, dim))
        self.time_pos_emb = nn.Parameter(torch.randn(layout.time_embeds, 1, dim))
        self.layers = nn.ModuleList(
            CompressorLayer(
                [
                    PerceiverAttention(dim, heads),
                    *([TemporalAttention(dim, heads)] if layout.temporal else []),
                    feed_forward(dim),
                ]
            )
            for _ in range(layout.depth)
        )
        self.norm = nn.LayerNorm(dim)

    def forward(self, features: Tensor) -> Tensor:
        frames = features.reshape(self.frames, -1, features.shape[-1])
        read = self.goal_emb(frames) + self.time_pos_emb[: self.frames]
        x: Tensor = self.latents
        for layer in self.layers:
            x = layer(read, x)
        out: Tensor = self.norm(x.flatten(0, 1))
        return out.unsqueeze(0)
