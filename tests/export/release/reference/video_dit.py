"""Wan2.2's video DiT at timestep 0, its rotary embedding in complex numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tests.export.release.reference.plain import Tensors, Weights, attention, normal, silu, waves


def rotary(grid: tuple[int, int, int], size: int) -> Tensor:
    """Complex turns [tokens, size / 2]."""
    shares = (size - 2 * (size // 3), size // 3, size // 3)
    axes = [
        torch.outer(
            torch.arange(count, dtype=torch.float64),
            10_000.0 ** -(torch.arange(0, share, 2, dtype=torch.float64)[: share // 2] / share),
        )
        for count, share in zip(grid, shares, strict=True)
    ]
    angles = [
        torch.cat([axes[0][f], axes[1][r], axes[2][c]])
        for f in range(grid[0])
        for r in range(grid[1])
        for c in range(grid[2])
    ]
    return torch.polar(torch.ones(1, dtype=torch.float64), torch.stack(angles))


def turned(x: Tensor, turns: Tensor, heads: int) -> Tensor:
    pairs = torch.view_as_complex(x.reshape(len(x), heads, -1, 2))
    return torch.view_as_real(pairs * turns[:, None]).reshape(x.shape)


class Dit:
    def __init__(self, weights: Tensors, config: dict[str, Any]) -> None:
        self.w, self.heads = Weights(dict(weights)), config["wan"]["num_heads"]
        self.blocks, self.waves = config["wan_layers_used"], config["wan"]["freq_dim"]

    def features(self, latent: Tensor, text: Tensor) -> Tensor:
        """Latents [1, C, T, h, w] -> features [T, rows, columns, D]."""
        w, weight = self.w, self.w["patch_embedding.weight"]
        patches = functional.conv3d(latent, weight, w["patch_embedding.bias"], stride=(1, 2, 2))[0]
        x, grid = patches.flatten(1).T, patches.shape[1:]
        time = w.linear("time_embedding.0", waves(0.0, self.waves))
        time = w.linear("time_embedding.2", silu(time))
        shifts = w.linear("time_projection.1", silu(time)).reshape(6, -1)
        text = w.chain("text_embedding", text.double()[0], "tanh")
        turns = rotary((grid[0], grid[1], grid[2]), x.shape[-1] // self.heads)
        for block in range(self.blocks):
            x = self.block(f"blocks.{block}", x, text, shifts, turns)
        return x.reshape(*grid, -1)

    def block(self, key: str, x: Tensor, text: Tensor, shifts: Tensor, turns: Tensor) -> Tensor:
        six = self.w[f"{key}.modulation"][0] + shifts
        y = normal(x, 1e-6) * (1 + six[1]) + six[0]
        query, keys, values = self.projected(f"{key}.self_attn", y, y)
        query, keys = turned(query, turns, self.heads), turned(keys, turns, self.heads)
        mixed = attention(query, keys, values, self.heads)
        x = x + six[2] * self.w.linear(f"{key}.self_attn.o", mixed)
        y = self.w.layer_norm(f"{key}.norm3", x, 1e-6)
        mixed = attention(*self.projected(f"{key}.cross_attn", y, text), heads=self.heads)
        x = x + self.w.linear(f"{key}.cross_attn.o", mixed)
        y = normal(x, 1e-6) * (1 + six[4]) + six[3]
        return x + six[5] * self.w.chain(f"{key}.ffn", y, "tanh")

    def projected(self, key: str, x: Tensor, read: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        def unit(part: str, y: Tensor) -> Tensor:
            return y / (y.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * self.w[f"{key}.{part}"]

        query, keys, values = (
            self.w.linear(f"{key}.{name}", source)
            for name, source in (("q", x), ("k", read), ("v", read))
        )
        return unit("norm_q.weight", query), unit("norm_k.weight", keys), values
