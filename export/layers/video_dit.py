"""Video diffusion transformer in Wan's form, with rotary embedding in real arithmetic.

Run once at timestep 0 it is a feature extractor (`features`); training denoises future frames
with `forward`, each frame at its own timestep. Module names follow Wan 2.x checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import NORM_EPS, RmsNorm, attend, mlp, sinusoid, split_heads, stacked_kv
from export.layers.config import DitConfig


def rotary_table(frames: int, rows: int, columns: int, head_dim: int) -> Tensor:
    """Angles [frames, rows, columns, head_dim / 2] of Wan's 3-D rotary embedding.

    The head is shared out as head_dim - 4 * (head_dim // 6) for time and 2 * (head_dim // 6) each
    for row and column; every share starts at frequency 1 (base 10000).
    """
    side = 2 * (head_dim // 6)
    angles = []
    for axis, share in enumerate((head_dim - 2 * side, side, side)):
        position = torch.arange((frames, rows, columns)[axis], dtype=torch.float64)
        frequency = 10_000.0 ** (-torch.arange(0, share, 2, dtype=torch.float64) / max(share, 1))
        shape = [1, 1, 1, share // 2]
        shape[axis] = len(position)
        grid = torch.outer(position, frequency).reshape(shape)
        angles.append(grid.expand(frames, rows, columns, share // 2))
    return torch.cat(angles, dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn neighbouring pairs of x [B, heads, L, hd] by the angles of cos, sin [L, hd / 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class DitAttention(nn.Module):
    """Projections of Wan's attention; queries and keys are RMS-normalised over the whole width."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.k = nn.Linear(dim, dim)
        self.v = nn.Linear(dim, dim)
        self.o = nn.Linear(dim, dim)
        self.norm_q = RmsNorm(dim)
        self.norm_k = RmsNorm(dim)

    def query(self, x: Tensor) -> Tensor:
        return split_heads(self.norm_q(self.q(x)), self.heads)

    def kv(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D] -> keys and values [2, B, heads, L, hd]."""
        key, value = self.norm_k(self.k(tokens)), self.v(tokens)
        return torch.stack([split_heads(key, self.heads), split_heads(value, self.heads)])


class DitBlock(nn.Module):
    """Rotary self-attention, text cross-attention, feed-forward; adaptive norms per frame."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__()
        dim, heads = config.dim, config.heads
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.self_attn = DitAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.cross_attn = DitAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.ffn = mlp(dim, config.ffn, dim)
        self.modulation = nn.Parameter(torch.randn(1, 6, dim) / dim**0.5)

    def forward(
        self, x: Tensor, shifts: Tensor, rotary: tuple[Tensor, Tensor], text_kv: Tensor
    ) -> Tensor:
        """x [B, T, N, D] (N tokens a frame), shifts [B, T, 6, D], text_kv [2, B, heads, L, hd]."""
        frames = x.shape[1]
        shift1, scale1, gate1, shift2, scale2, gate2 = (
            (self.modulation + shifts).unsqueeze(2).unbind(3)
        )
        y = self.self_attention(self.norm1(x) * (1 + scale1) + shift1, rotary)
        x = x + y * gate1
        query = self.cross_attn.query(self.norm3(x).flatten(1, 2))
        y = self.cross_attn.o(attend(query, text_kv[0], text_kv[1]))
        x = x + y.unflatten(1, (frames, -1))
        out: Tensor = x + self.ffn(self.norm2(x) * (1 + scale2) + shift2) * gate2
        return out

    def self_attention(self, x: Tensor, rotary: tuple[Tensor, Tensor]) -> Tensor:
        tokens = x.flatten(1, 2)
        key, value = self.self_attn.kv(tokens).unbind(0)
        query = rotate(self.self_attn.query(tokens), *rotary)
        out: Tensor = self.self_attn.o(attend(query, rotate(key, *rotary), value))
        frames: Tensor = out.unflatten(1, x.shape[1:3])
        return frames


class DitHead(nn.Module):
    """Tokens [B, T, N, D] -> patches [B, T, N, values], modulated by the frame's timestep."""

    def __init__(self, dim: int, values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.head = nn.Linear(dim, values)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, embedded_time: Tensor) -> Tensor:
        shift, scale = (self.modulation + embedded_time.unsqueeze(2)).unsqueeze(2).unbind(3)
        out: Tensor = self.head(self.norm(x) * (1 + scale) + shift)
        return out


class VideoDit(nn.Module):
    """Latents [B, C, T, h, w] to token features; `grid` is rows and columns of tokens a frame."""

    clean: Tensor
    cos: Tensor
    sin: Tensor

    def __init__(
        self, config: DitConfig, channels: int, text_dim: int, grid: tuple[int, int]
    ) -> None:
        super().__init__()
        dim, patch = config.dim, config.patch
        if patch[0] != 1:
            raise ValueError(f"dit.patch spans {patch[0]} frames; timesteps are per frame, use 1")
        self.config, self.grid, self.channels = config, grid, channels
        self.patch_embedding = nn.Conv3d(channels, dim, patch, stride=patch)
        self.text_embedding = mlp(text_dim, dim, dim)
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(DitBlock(config) for _ in range(config.blocks))
        self.head = DitHead(dim, channels * patch[1] * patch[2])
        angles = rotary_table(config.max_frames, *grid, dim // config.heads).flatten(1, 2)
        # Timestep 0 for all frames; a buffer, so that what follows from it alone can be folded.
        self.register_buffer("clean", torch.zeros(1, 1), persistent=False)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def text_kv(self, text_tokens: Tensor) -> Tensor:
        """Text [B, L, text_dim] -> K/V of every block [blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks, self.text_embedding(text_tokens))

    def features(self, latents: Tensor, text_kv: Tensor) -> Tensor:
        """Features [B, T, rows, columns, D] after the last block, every frame clean (t = 0)."""
        tokens = self._tokens(latents, self._embed_time(self.clean), text_kv)
        features: Tensor = tokens.unflatten(2, self.grid)
        return features

    def forward(self, latents: Tensor, timestep: Tensor, text_kv: Tensor) -> Tensor:
        """Denoise: latents [B, C, T, h, w], timestep [B, T] in 0..1000 -> prediction, same shape.

        Training reads the prediction as the clean frame less the newest context frame.
        """
        embedded_time = self._embed_time(timestep)
        patches: Tensor = self.head(self._tokens(latents, embedded_time, text_kv), embedded_time)
        _, patch_h, patch_w = self.config.patch
        patches = patches.unflatten(-1, (patch_h, patch_w, self.channels)).unflatten(2, self.grid)
        return patches.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)

    def _embed_time(self, timestep: Tensor) -> Tensor:
        embedded: Tensor = self.time_embedding(sinusoid(timestep, self.config.freq_dim))
        return embedded

    def _tokens(self, latents: Tensor, embedded_time: Tensor, text_kv: Tensor) -> Tensor:
        frames = latents.shape[2]
        x = self.patch_embedding(latents).flatten(3).permute(0, 2, 3, 1)
        shifts = self.time_projection(embedded_time).unflatten(-1, (6, -1))
        rotary = (self.cos[:frames].flatten(0, 1), self.sin[:frames].flatten(0, 1))
        for block, kv in zip(self.blocks, text_kv.unbind(0), strict=True):
            x = block(x, shifts, rotary, kv)
        tokens: Tensor = x
        return tokens
