"""Encoder of Wan2.2's causal video VAE (`Wan2.2_VAE.pth`), with its key names.

The release feeds it frame 1 alone and then groups of 4, and carries the last two frames of every
convolution's input over to the next group. That is a causal convolution over the whole clip, cut
into pieces: each piece's missing past is the cache, and before frame 1 it is zeros. Here the clip
goes through whole, so the cache is the tensor itself, and the graph has one copy of each layer
whatever the clip's length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.layers.blocks import attend

STAGES = ((1, False), (2, True), (4, True), (4, None))
"""Of each stage: channels in units of `dim`; whether it halves time (None: it halves nothing)."""

GROUP = 4  # frames that become one latent, after the first
PATCH = 2  # pixels each way that become channels before the first convolution


class CausalConv3d(nn.Conv3d):
    """3-D convolution [B, C, T, h, w], size-preserving, zero-padded in front only along time."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, kernel // 2, kernel // 2))
        self.past = kernel - 1

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(functional.pad(x, (0, 0, 0, 0, self.past, 0)))


class ChannelNorm(nn.Module):
    """Each pixel's channels brought to length sqrt(C), times a learned weight."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = functional.normalize(x, dim=1) * len(self.gamma) ** 0.5 * self.gamma
        return out


class ResidualBlock(nn.Module):
    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(inputs, 3),
            nn.SiLU(),
            CausalConv3d(inputs, outputs, 3),
            ChannelNorm(outputs, 3),
            nn.SiLU(),
            nn.Identity(),  # dropout in training; holds the place in the key names
            CausalConv3d(outputs, outputs, 3),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else CausalConv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.shortcut(x) + self.residual(x)
        return out


class Resample(nn.Module):
    """Halve height and width; with `in_time`, also time: 1 + 2n frames become 1 + n."""

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.in_time = in_time
        if in_time:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        planes = self.resample(x.transpose(1, 2).flatten(0, 1))
        x = planes.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        if not self.in_time or x.shape[2] == 1:
            return x
        # The first frame, encoded alone, passes as it is; the next pairs look one frame back.
        return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


def average_down(x: Tensor, outputs: int, time: int, space: int) -> Tensor:
    """The shortcut of a stage: blocks of time x space x space pixels become channels, of which
    neighbours are averaged into `outputs`; a clip of odd length gets a zero frame in front."""
    x = functional.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    batch, channels, frames, height, width = x.shape
    x = x.reshape(
        batch, channels, frames // time, time, height // space, space, width // space, space
    )
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
    size = x.shape[5:]
    return x.reshape(batch, outputs, -1, *size).mean(dim=2)


class DownStage(nn.Module):
    """Two residual blocks, then half the size, beside `average_down`."""

    def __init__(self, inputs: int, outputs: int, halves_time: bool | None) -> None:
        super().__init__()
        self.outputs = outputs
        self.factors = (2 if halves_time else 1, 1 if halves_time is None else 2)
        layers: list[nn.Module] = [ResidualBlock(inputs, outputs), ResidualBlock(outputs, outputs)]
        if halves_time is not None:
            layers.append(Resample(outputs, halves_time))
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.downsamples(x) + average_down(x, self.outputs, *self.factors)
        return out


class FrameAttention(nn.Module):
    """Single-head attention between the pixels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, _, frames, height, width = x.shape
        planes = x.transpose(1, 2).flatten(0, 1)
        tokens = self.to_qkv(self.norm(planes)).flatten(2).transpose(1, 2).unsqueeze(1)
        mixed = attend(*tokens.chunk(3, dim=-1)).transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = self.proj(mixed).unflatten(0, (batch, frames)).transpose(1, 2)
        return x + out


class Encoder(nn.Module):
    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.conv1 = CausalConv3d(3 * PATCH**2, dim, 3)
        stages, channels = [], dim
        for multiple, halves_time in STAGES:
            stages.append(DownStage(channels, multiple * dim, halves_time))
            channels = multiple * dim
        self.downsamples = nn.Sequential(*stages)
        self.middle = nn.Sequential(
            ResidualBlock(channels, channels),
            FrameAttention(channels),
            ResidualBlock(channels, channels),
        )
        self.head = nn.Sequential(
            ChannelNorm(channels, 3), nn.SiLU(), CausalConv3d(channels, outputs, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.middle(self.downsamples(self.conv1(x))))
        return out


class WanVaeEncoder(nn.Module):
    """Video [B, 3, T, H, W] in [-1, 1] -> normalised latents [B, C, 1 + n, H/16, W/16].

    T is 1 + 4n; as released, up to three frames more are not looked at.
    """

    _latent_mean: Tensor
    _latent_std: Tensor

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.encoder = Encoder(dim, 2 * channels)
        self.conv1 = CausalConv3d(2 * channels, 2 * channels, 1)
        self.register_buffer("_latent_mean", torch.zeros(channels))
        self.register_buffer("_latent_std", torch.ones(channels))

    def forward(self, video: Tensor) -> Tensor:
        grouped = video[:, :, : 1 + (video.shape[2] - 1) // GROUP * GROUP]
        # The upper half of the channels is the log-variance, of use in training only.
        mean, _ = self.conv1(self.encoder(pixels_to_channels(grouped))).chunk(2, dim=1)
        shape = (1, -1, 1, 1, 1)
        out: Tensor = (mean - self._latent_mean.view(shape)) / self._latent_std.view(shape)
        return out


def pixels_to_channels(video: Tensor) -> Tensor:
    """[B, C, T, H, W] -> [B, 4 C, T, H / 2, W / 2]; of the four, columns change slowest."""
    batch, channels, frames, height, width = video.shape
    x = video.reshape(batch, channels, frames, height // PATCH, PATCH, width // PATCH, PATCH)
    return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)
