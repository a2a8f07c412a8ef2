"""Layers that several models share: attention, K/V projection, sinusoids, pixel scaling.

Shapes in this package: B batch, L tokens, D width, hd width of a head (D / heads), T frames, h and
w latent rows and columns, H and W pixels. Tensors are float32 unless a docstring says otherwise.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

NORM_EPS = 1e-6


def pixels_to_unit(image: Tensor) -> Tensor:
    """Scale RGB values in 0..255, uint8 or float, to float32 in -1..1; the shape stays."""
    return image.to(torch.float32) / 127.5 - 1.0


class RmsNorm(nn.Module):
    """Divides by the root mean square over the last axis and multiplies by a learned weight.

    Inference engines fuse this form (power, mean, root, division) into one operation.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x [..., D]; the shape stays."""
        root = (x.pow(2).mean(-1, keepdim=True) + NORM_EPS).sqrt()
        out: Tensor = x / root * self.weight
        return out


def sinusoid(position: Tensor, dim: int) -> Tensor:
    """Embed positions of any shape [...] as cosines, then sines, [..., dim].

    Periods range from 2 pi to 2 pi * 10000. Wan and RDT also put the cosines first.
    """
    half = dim // 2
    frequency = torch.exp(
        torch.arange(half, dtype=torch.float32, device=position.device)
        * (-math.log(10_000.0) / half)
    )
    angle = position[..., None].to(torch.float32) * frequency
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def mlp(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Build linear, GELU, linear. Inference engines fuse GELU's erf form at opset 18."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.GELU(), nn.Linear(hidden, outputs))


def split_heads(x: Tensor, heads: int) -> Tensor:
    """Split x [B, L, D] into heads [B, heads, L, hd]."""
    heads_apart: Tensor = x.unflatten(-1, (heads, -1))
    return heads_apart.transpose(1, 2)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """Attend from query [B, heads, L, hd] to key and value [B, heads, Lk, hd]: [B, L, D].

    `bias` is added to the scores [B, heads, L, Lk]. torch's fused attention would export to twice
    as many nodes, and small graphs cost ONNX Runtime time per node.
    """
    scale = 1 / math.sqrt(query.shape[-1])
    scores = (query * scale) @ key.transpose(-1, -2)
    if bias is not None:
        scores = scores + bias
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


class SelfAttention(nn.Module):
    """Self-attention whose queries and keys are RMS-normalised per head (RDT)."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim)
        self.q_norm = RmsNorm(dim // heads)
        self.k_norm = RmsNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        """Mix tokens x [B, L, D]; the shape stays."""
        query, key, value = (split_heads(y, self.heads) for y in self.qkv(x).chunk(3, dim=-1))
        out: Tensor = self.proj(attend(self.q_norm(query), self.k_norm(key), value))
        return out


class CrossAttention(nn.Module):
    """Cross-attention to precomputed K/V: `kv` runs only when its tokens change."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q = nn.Linear(dim, dim)
        self.to_kv = nn.Linear(dim, 2 * dim)
        self.q_norm = RmsNorm(dim // heads)
        self.k_norm = RmsNorm(dim // heads)
        self.proj = nn.Linear(dim, dim)

    def kv(self, tokens: Tensor) -> Tensor:
        """Project tokens [B, L, D] to normalised keys and values [2, B, heads, L, hd]."""
        key, value = (split_heads(y, self.heads) for y in self.to_kv(tokens).chunk(2, dim=-1))
        return torch.stack([self.k_norm(key), value])

    def forward(self, x: Tensor, kv: Tensor) -> Tensor:
        """Read kv [2, B, heads, Lk, hd] with tokens x [B, L, D]; the shape of x stays."""
        query = self.q_norm(split_heads(self.q(x), self.heads))
        out: Tensor = self.proj(attend(query, kv[0], kv[1]))
        return out


class CrossBlock(nn.Module):
    """An RDT block: self-attention, cross-attention to given K/V, feed-forward, RMS pre-norms."""

    def __init__(self, dim: int, heads: int, ffn_ratio: int) -> None:
        super().__init__()
        self.norm1 = RmsNorm(dim)
        self.attn = SelfAttention(dim, heads)
        self.norm2 = RmsNorm(dim)
        self.cross_attn = CrossAttention(dim, heads)
        self.norm3 = RmsNorm(dim)
        self.ffn = mlp(dim, ffn_ratio * dim, dim)

    def forward(self, x: Tensor, kv: Tensor) -> Tensor:
        """Update tokens x [B, L, D] from kv [2, B, heads, Lk, hd]; the shape of x stays."""
        x = x + self.attn(self.norm1(x))
        x = x + self.cross_attn(self.norm2(x), kv)
        out: Tensor = x + self.ffn(self.norm3(x))
        return out


def stacked_kv(blocks: Iterable[Any], tokens: Tensor) -> Tensor:
    """Project tokens [B, L, D] to the K/V of every block's cross-attention.

    Returns [blocks, 2, B, heads, L, hd]: keys, then values.
    """
    return torch.stack([block.cross_attn.kv(tokens) for block in blocks])


def position_embedding(tokens: int, dim: int) -> nn.Parameter:
    """Create learned positions [tokens, dim] with small random values."""
    return nn.Parameter(0.02 * torch.randn(tokens, dim))
