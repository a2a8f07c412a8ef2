"""The video diffusion transformer in Wan's form, with rotary embedding in real arithmetic.

`features` runs it once at timestep 0 as a feature extractor. Training denoises future frames with
`forward`, each frame at its own timestep. Module names follow Wan 2.x checkpoints.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import NORM_EPS, RmsNorm, attend, mlp, sinusoid, split_heads, stacked_kv
from export.layers.config import DitConfig


def rotary_table(frames: int, rows: int, columns: int, head_dim: int) -> Tensor:
    """Return the angles of Wan's 3-D rotary embedding in rad.

    Their shape is float64 [T, rows, columns, hd / 2].
    Rows and columns get 2 * (hd // 6) of a head's channels each, time gets the rest. Each share
    starts at frequency 1 (base 10000).
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
    """Rotate neighbouring pairs of x [B, heads, L, hd] by the angles of cos, sin [L, hd / 2]."""
    even, odd = x.unflatten(-1, (-1, 2)).unbind(-1)
    return torch.stack([even * cos - odd * sin, even * sin + odd * cos], dim=-1).flatten(-2)


class DitAttention(nn.Module):
    """The projections of Wan's attention. Queries and keys are normalised over the whole width."""

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
        """Project x [B, L, D] to normalised queries [B, heads, L, hd]."""
        return split_heads(self.norm_q(self.q(x)), self.heads)

    def kv(self, tokens: Tensor) -> Tensor:
        """Project tokens [B, L, D] to keys and values [2, B, heads, L, hd]."""
        key, value = self.norm_k(self.k(tokens)), self.v(tokens)
        return torch.stack([split_heads(key, self.heads), split_heads(value, self.heads)])


class DitBlock(nn.Module):
    """Rotary self-attention, text cross-attention and feed-forward, with adaptive norms."""

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
        """Update tokens x [B, T, N, D], N per frame; the shape stays.

        `shifts` [B, T, 6, D] modulates the norms, `rotary` is (cos, sin), each [T * N, hd / 2], and
        `text_kv` is [2, B, heads, L, hd].
        """
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
        """Mix tokens x [B, T, N, D] of all frames; the shape stays."""
        tokens = x.flatten(1, 2)
        key, value = self.self_attn.kv(tokens).unbind(0)
        query = rotate(self.self_attn.query(tokens), *rotary)
        out: Tensor = self.self_attn.o(attend(query, rotate(key, *rotary), value))
        frames: Tensor = out.unflatten(1, x.shape[1:3])
        return frames


class DitHead(nn.Module):
    """The output layer, modulated by each frame's timestep."""

    def __init__(self, dim: int, values: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim, eps=NORM_EPS, elementwise_affine=False)
        self.modulation = nn.Parameter(torch.randn(1, 2, dim) / dim**0.5)
        self.head = nn.Linear(dim, values)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x: Tensor, embedded_time: Tensor) -> Tensor:
        """Map tokens x [B, T, N, D] to patches [B, T, N, values]; embedded_time is [B, T, D]."""
        shift, scale = (self.modulation + embedded_time.unsqueeze(2)).unsqueeze(2).unbind(3)
        out: Tensor = self.head(self.norm(x) * (1 + scale) + shift)
        return out


class VideoDit(nn.Module):
    """The video DiT. `grid` is the rows and columns of tokens per frame."""

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
        # Timestep 0 for all frames. As a buffer it lets the exporter fold what depends on it alone.
        self.register_buffer("clean", torch.zeros(1, 1), persistent=False)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def text_kv(self, text_tokens: Tensor) -> Tensor:
        """Project text [B, L, text_dim] to the K/V of every block [blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks, self.text_embedding(text_tokens))

    def features(self, latents: Tensor, text_kv: Tensor) -> Tensor:
        """Return features [B, T, rows, columns, D] of clean latents [B, C, T, h, w] (t = 0)."""
        tokens = self._tokens(latents, self._embed_time(self.clean), text_kv)
        features: Tensor = tokens.unflatten(2, self.grid)
        return features

    def forward(self, latents: Tensor, timestep: Tensor, text_kv: Tensor) -> Tensor:
        """Denoise latents [B, C, T, h, w] at timestep [B, T] in 0..1000; the shape stays.

        In training the prediction is the clean frame minus the newest context frame.
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
