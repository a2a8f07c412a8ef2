"""Wan2.2's video DiT as a one-pass feature extractor: its first blocks, without noise or head.

Key names and arithmetic are those of Wan2.2 TI2V-5B. As in the release, all tokens have timestep 0.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import sinusoid, stacked_kv
from export.layers.config import DitConfig
from export.layers.video_dit import DitBlock, rotary_table

Rotary = tuple[Tensor, Tensor]


def mlp_tanh(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build linear, GELU, linear with GELU's tanh form, with which Wan and RDT were trained.

    `export.layers.blocks.mlp` uses the erf form.
    """
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.GELU(approximate="tanh"), nn.Linear(hidden, outputs)
    )


class WanBlock(DitBlock):
    """`DitBlock` with Wan's GELU. All other steps and key names are the same."""

    def __init__(self, config: DitConfig) -> None:
        super().__init__(config)
        self.ffn = mlp_tanh(config.dim, config.ffn, config.dim)


class WanDit(nn.Module):
    """The video DiT's first blocks, which map latents to token features."""

    clean: Tensor

    def __init__(self, config: DitConfig, channels: int, text_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.config = config
        self.patch_embedding = nn.Conv3d(channels, dim, config.patch, stride=config.patch)
        self.text_embedding = mlp_tanh(text_dim, dim, dim)
        self.time_embedding = nn.Sequential(
            nn.Linear(config.freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim)
        )
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(WanBlock(config) for _ in range(config.blocks))
        # A buffer, so that the exporter can fold what depends on timestep 0 alone. On the CPU, so
        # that it has a value even while the weights have no storage.
        self.register_buffer("clean", torch.zeros(1, 1, device="cpu"), persistent=False)

    def text_kv(self, text_tokens: Tensor) -> Tensor:
        """Project text [B, L, text_dim] to the K/V of every block [blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks, self.text_embedding(text_tokens))

    def forward(self, latents: Tensor, rotary: Rotary, text_kv: Tensor) -> Tensor:
        """Map latents [B, C, T, h, w] to features [B, T, rows, columns, D] of the last block.

        `rotary` belongs to the latents' token grid.
        """
        embedded_time = self.time_embedding(sinusoid(self.clean, self.config.freq_dim))
        shifts = self.time_projection(embedded_time).unflatten(-1, (6, -1))
        patches = self.patch_embedding(latents)
        x = patches.flatten(3).permute(0, 2, 3, 1)
        for block, kv in zip(self.blocks, text_kv.unbind(0), strict=True):
            x = block(x, shifts, rotary, kv)
        features: Tensor = x.unflatten(2, patches.shape[3:])
        return features


class RotaryTable(nn.Module):
    """The constants cos and sin of one token grid, each of shape [tokens, hd / 2]."""

    cos: Tensor
    sin: Tensor

    def __init__(self, grid: tuple[int, int, int], head_dim: int) -> None:
        super().__init__()
        angles = rotary_table(*grid, head_dim).flatten(0, 2)
        self.register_buffer("cos", angles.cos().float(), persistent=False)
        self.register_buffer("sin", angles.sin().float(), persistent=False)

    def forward(self) -> Rotary:
        return self.cos, self.sin
