"""What several networks of the release share: linear layers, norms, attention; float64."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Tensors = Mapping[str, Tensor]


@dataclass
class Weights:
    tensors: dict[str, Tensor]

    def __getitem__(self, key: str) -> Tensor:
        return self.tensors[key].double()

    def linear(self, key: str, x: Tensor) -> Tensor:
        out = x @ self[f"{key}.weight"].flatten(1).T
        return out + self[f"{key}.bias"] if f"{key}.bias" in self.tensors else out

    def layer_norm(self, key: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return normal(x, eps) * self[f"{key}.weight"] + self[f"{key}.bias"]

    def chain(self, key: str, x: Tensor, activation: str) -> Tensor:
        """Linear layers at even places of a sequence, GELU between them."""
        layers = [i for i in range(0, 20, 2) if f"{key}.{i}.weight" in self.tensors]
        if not layers:
            return self.linear(key, x)
        for i in layers:
            x = self.linear(f"{key}.{i}", gelu(x, activation) if i else x)
        return x


def gelu(x: Tensor, form: str) -> Tensor:
    if form == "erf":
        return x * (1 + torch.erf(x / math.sqrt(2))) / 2
    return x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2


def silu(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-x))


def normal(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + eps).sqrt()


def attention(query: Tensor, key: Tensor, value: Tensor, heads: int, bias: Any = 0.0) -> Tensor:
    """[..., L, D] each, one head after the other."""
    size, out = query.shape[-1] // heads, []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = query[..., part] @ key[..., part].transpose(-1, -2) / math.sqrt(size) + bias
        out.append(torch.softmax(scores, -1) @ value[..., part])
    return torch.cat(out, -1)


def waves(position: float, size: int) -> Tensor:
    angle = position * 10_000.0 ** (-torch.arange(size // 2, dtype=torch.float64) / (size // 2))
    return torch.cat([angle.cos(), angle.sin()])
