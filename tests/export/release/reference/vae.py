"""Wan2.2's video VAE as it is run: frame 1 alone, then groups of 4; caches hold what a layer saw
last. Maps are [C, T, h, w]."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional

from tests.export.release.reference.plain import Tensors, Weights, attention, silu


class Vae:
    def __init__(self, weights: Tensors) -> None:
        self.w = Weights(dict(weights))

    def encode(self, video: Tensor) -> Tensor:
        self.cache: dict[str, Tensor] = {}
        video = video.double()[0]
        ends = [1, *range(5, video.shape[1] + 1, 4)]
        groups = [video[:, start:end] for start, end in zip([0, *ends], ends, strict=False)]
        encoded = torch.cat([self.group(group) for group in groups], dim=1)
        mean, _ = functional.conv3d(
            encoded[None], self.w["conv1.weight"], self.w["conv1.bias"]
        )[0].chunk(2)  # fmt: skip
        shift, scale = self.w["_latent_mean"], self.w["_latent_std"]
        return ((mean - shift[:, None, None, None]) / scale[:, None, None, None])[None]

    def group(self, video: Tensor) -> Tensor:
        patches = [video[c, :, q::2, r::2] for c in range(3) for r in (0, 1) for q in (0, 1)]
        x = self.causal("encoder.conv1", torch.stack(patches))
        for stage, (time, space) in enumerate(((1, 2), (2, 2), (2, 2), (1, 1))):
            key = f"encoder.downsamples.{stage}.downsamples"
            short = x
            for block in ("0", "1"):
                x = self.residual(f"{key}.{block}", x)
            if space == 2:
                x = self.halved(f"{key}.2", x, in_time=time == 2)
            x = x + averaged(short, len(x), time, space)
        x = self.residual("encoder.middle.0", x)
        x = x + self.frame_attention("encoder.middle.1", x)
        x = self.residual("encoder.middle.2", x)
        return self.causal("encoder.head.2", silu(self.norm("encoder.head.0", x)))

    def causal(self, key: str, x: Tensor) -> Tensor:
        past = self.cache.get(key, torch.zeros_like(x[:, :1]).repeat(1, 2, 1, 1))
        x = torch.cat([past, x], dim=1)
        self.cache[key] = x[:, -2:]
        padded = functional.pad(x, (1, 1, 1, 1))[None]
        return functional.conv3d(padded, self.w[f"{key}.weight"], self.w[f"{key}.bias"])[0]

    def norm(self, key: str, x: Tensor) -> Tensor:
        length = x.pow(2).sum(0, keepdim=True).sqrt()
        return x / length * math.sqrt(len(x)) * self.w[f"{key}.gamma"].reshape(-1, 1, 1, 1)

    def residual(self, key: str, x: Tensor) -> Tensor:
        y = self.causal(f"{key}.residual.2", silu(self.norm(f"{key}.residual.0", x)))
        y = self.causal(f"{key}.residual.6", silu(self.norm(f"{key}.residual.3", y)))
        if f"{key}.shortcut.weight" in self.w.tensors:
            x = self.w.linear(f"{key}.shortcut", x.movedim(0, -1)).movedim(-1, 0)
        return x + y

    def halved(self, key: str, x: Tensor, in_time: bool) -> Tensor:
        padded = functional.pad(x.transpose(0, 1), (0, 1, 0, 1))
        weight, bias = self.w[f"{key}.resample.1.weight"], self.w[f"{key}.resample.1.bias"]
        x = functional.conv2d(padded, weight, bias, stride=2).transpose(0, 1)
        if not in_time:
            return x
        past = self.cache.get(key)
        self.cache[key] = x[:, -1:]
        if past is None:
            return x
        weight, bias = self.w[f"{key}.time_conv.weight"], self.w[f"{key}.time_conv.bias"]
        joined = torch.cat([past, x], dim=1)[None]
        return functional.conv3d(joined, weight, bias, stride=(2, 1, 1))[0]

    def frame_attention(self, key: str, x: Tensor) -> Tensor:
        tokens = self.norm(f"{key}.norm", x).flatten(2).permute(1, 2, 0)
        query, keys, values = self.w.linear(f"{key}.to_qkv", tokens).chunk(3, -1)
        mixed = attention(query, keys, values, heads=1)
        return self.w.linear(f"{key}.proj", mixed).permute(2, 0, 1).reshape(x.shape)


def averaged(x: Tensor, outputs: int, time: int, space: int) -> Tensor:
    """Blocks of time x space x space become channels, of which neighbours are averaged."""
    if x.shape[1] % time:
        x = torch.cat([torch.zeros_like(x[:, :1]), x], dim=1)
    pieces = [
        channel[t::time, row::space, column::space]
        for channel in x
        for t in range(time)
        for row in range(space)
        for column in range(space)
    ]
    share = len(pieces) // outputs
    groups = [pieces[i : i + share] for i in range(0, len(pieces), share)]
    return torch.stack([torch.stack(group).mean(0) for group in groups])
