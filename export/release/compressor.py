"""The release's token compressor: a perceiver with optional attention over time."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import attend, mlp, split_heads
from export.release.layout import HEAD_DIM, CompressorLayout


class PerceiverAttention(nn.Module):
    """Attention from latents to features and to the latents themselves."""

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
        """Read features [N, L, D] with latents [N, Q, D]; the latents' shape stays."""
        latents = self.norm_latents(latents)
        read = torch.cat([self.norm_media(features), latents], dim=1)
        projected = (self.to_q(latents), self.to_k(read), self.to_v(read))
        out: Tensor = self.to_out(attend(*(split_heads(x, self.heads) for x in projected)))
        return out


class TemporalAttention(nn.Module):
    """Attention of each latent to itself in the other frames.

    The release adds a mask of ones to the scores. That does not change the softmax, so it is left
    out here.
    """

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix latents x [N, T, D] over time T; the shape stays."""
        parts = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))
        out: Tensor = self.proj(attend(*parts))
        return out


class CompressorLayer(nn.ModuleList):
    """Perceiver attention, optional attention over time, feed-forward.

    It is a list because the released key names number the parts.
    """

    def forward(self, read: Tensor, latents: Tensor) -> Tensor:
        """Update latents [T, Q, D] from features `read` [T, L, D]; the latents' shape stays."""
        attention, *temporal, feed_forward = self
        x = latents + attention(read, latents)
        for over_time in temporal:
            x = x + over_time(x.transpose(0, 1)).transpose(0, 1)
        out: Tensor = x + feed_forward(x)
        return out


def feed_forward(dim: int) -> nn.Sequential:
    """Build LayerNorm and an MLP."""
    return nn.Sequential(nn.LayerNorm(dim), *mlp(dim, 4 * dim, dim))


class TokenCompressor(nn.Module):
    """Compresses the video DiT's features to a few tokens. The batch size is 1.

    With no layers, as in the release's template, the tokens are constants and ignore the video.
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
        """Compress features [1, T * N, D] to tokens [1, frames * tokens, dim]."""
        frames = features.reshape(self.frames, -1, features.shape[-1])
        read = self.goal_emb(frames) + self.time_pos_emb[: self.frames]
        x: Tensor = self.latents
        for layer in self.layers:
            x = layer(read, x)
        out: Tensor = self.norm(x.flatten(0, 1))
        return out.unsqueeze(0)
