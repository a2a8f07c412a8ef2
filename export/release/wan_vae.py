"""The encoder of Wan2.2's causal video VAE (`Wan2.2_VAE.pth`), with its key names.

The release encodes frame 1 alone, then groups of 4 frames. For each convolution it caches the last
two input frames for the next group; before frame 1 these are zeros. That equals a causal
convolution over the whole clip. So this encoder takes the clip at once, without a cache, and its
graph has one copy of each layer for any clip length.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.layers.blocks import attend

STAGES = ((1, False), (2, True), (4, True), (4, None))
"""Per stage: channels in units of `dim`, and whether it halves time (None: it halves nothing)."""

GROUP = 4  # frames per latent, after the first
PATCH = 2  # side of the pixel blocks that become channels before the first convolution


class CausalConv3d(nn.Conv3d):
    """3-D convolution that pads time only at the front, so no output depends on later frames."""

    def __init__(self, inputs: int, outputs: int, kernel: int) -> None:
        super().__init__(inputs, outputs, kernel, padding=(0, kernel // 2, kernel // 2))
        self.past = kernel - 1

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, C, T, h, w]; T, h and w stay."""
        return super().forward(functional.pad(x, (0, 0, 0, 0, self.past, 0)))


class ChannelNorm(nn.Module):
    """Scales each pixel's channels to length sqrt(C) and multiplies by a learned weight."""

    def __init__(self, channels: int, axes: int) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(channels, *[1] * axes))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise x along its channels, axis 1; the shape stays."""
        out: Tensor = functional.normalize(x, dim=1) * len(self.gamma) ** 0.5 * self.gamma
        return out


class ResidualBlock(nn.Module):
    """Two causal convolutions with norms, beside a shortcut."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            ChannelNorm(inputs, 3),
            nn.SiLU(),
            CausalConv3d(inputs, outputs, 3),
            ChannelNorm(outputs, 3),
            nn.SiLU(),
            nn.Identity(),  # dropout in training; keeps the numbers in the key names
            CausalConv3d(outputs, outputs, 3),
        )
        same = inputs == outputs
        self.shortcut = nn.Identity() if same else CausalConv3d(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, inputs, T, h, w] to [B, outputs, T, h, w]."""
        out: Tensor = self.shortcut(x) + self.residual(x)
        return out


class Resample(nn.Module):
    """Halves height and width. With `in_time` it also turns 1 + 2n frames into 1 + n."""

    def __init__(self, channels: int, in_time: bool) -> None:
        super().__init__()
        self.resample = nn.Sequential(
            nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, channels, 3, stride=2)
        )
        self.in_time = in_time
        if in_time:
            self.time_conv = nn.Conv3d(channels, channels, (3, 1, 1), stride=(2, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Reduce x [B, C, T, h, w]; C stays."""
        planes = self.resample(x.transpose(1, 2).flatten(0, 1))
        x = planes.unflatten(0, (x.shape[0], x.shape[2])).transpose(1, 2)
        if not self.in_time or x.shape[2] == 1:
            return x
        # The first frame passes unchanged; each later pair also reads the frame before it.
        return torch.cat([x[:, :, :1], self.time_conv(x)], dim=2)


def average_down(x: Tensor, outputs: int, time: int, space: int) -> Tensor:
    """Compute the shortcut of a stage: x [B, C, T, h, w] to [B, outputs, T', h', w'].

    T' is T / time (rounded up), h' is h / space and w' is w / space. Blocks of time x space x space
    pixels become channels, and neighbouring channels are averaged. A clip of odd length gets a
    zero frame in front.
    """
    x = functional.pad(x, (0, 0, 0, 0, -x.shape[2] % time, 0))
    batch, channels, frames, height, width = x.shape
    x = x.reshape(
        batch, channels, frames // time, time, height // space, space, width // space, space
    )
    x = x.permute(0, 1, 3, 5, 7, 2, 4, 6)
    size = x.shape[5:]
    return x.reshape(batch, outputs, -1, *size).mean(dim=2)


class DownStage(nn.Module):
    """Two residual blocks and `Resample`, beside the shortcut `average_down`."""

    def __init__(self, inputs: int, outputs: int, halves_time: bool | None) -> None:
        super().__init__()
        self.outputs = outputs
        self.factors = (2 if halves_time else 1, 1 if halves_time is None else 2)
        layers: list[nn.Module] = [ResidualBlock(inputs, outputs), ResidualBlock(outputs, outputs)]
        if halves_time is not None:
            layers.append(Resample(outputs, halves_time))
        self.downsamples = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        """Map x [B, inputs, T, h, w] to `outputs` channels and the stage's size."""
        out: Tensor = self.downsamples(x) + average_down(x, self.outputs, *self.factors)
        return out


class FrameAttention(nn.Module):
    """Single-head attention among the pixels of each frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = ChannelNorm(channels, 2)
        self.to_qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Mix the pixels of x [B, C, T, h, w] within each frame; the shape stays."""
        batch, _, frames, height, width = x.shape
        planes = x.transpose(1, 2).flatten(0, 1)
        tokens = self.to_qkv(self.norm(planes)).flatten(2).transpose(1, 2).unsqueeze(1)
        mixed = attend(*tokens.chunk(3, dim=-1)).transpose(1, 2).unflatten(2, (height, width))
        out: Tensor = self.proj(mixed).unflatten(0, (batch, frames)).transpose(1, 2)
        return x + out


class Encoder(nn.Module):
    """The convolutional encoder: four stages, a middle block and a head."""

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
        """Encode x [B, 12, 1 + 4n, h, w] as [B, outputs, 1 + n, h / 8, w / 8]."""
        out: Tensor = self.head(self.middle(self.downsamples(self.conv1(x))))
        return out


class WanVaeEncoder(nn.Module):
    """The whole encoder, from video to normalised latents."""

    _latent_mean: Tensor
    _latent_std: Tensor

    def __init__(self, dim: int, channels: int) -> None:
        super().__init__()
        self.encoder = Encoder(dim, 2 * channels)
        self.conv1 = CausalConv3d(2 * channels, 2 * channels, 1)
        self.register_buffer("_latent_mean", torch.zeros(channels))
        self.register_buffer("_latent_std", torch.ones(channels))

    def forward(self, video: Tensor) -> Tensor:
        """Encode video [B, 3, T, H, W] in -1..1 as latents [B, C, 1 + n, h, w].

        h is H / 16 and w is W / 16. T is 1 + 4n; up to three more frames are ignored, as released.
        """
        grouped = video[:, :, : 1 + (video.shape[2] - 1) // GROUP * GROUP]
        # The second half of the channels is the log-variance, which only training uses.
        mean, _ = self.conv1(self.encoder(pixels_to_channels(grouped))).chunk(2, dim=1)
        shape = (1, -1, 1, 1, 1)
        out: Tensor = (mean - self._latent_mean.view(shape)) / self._latent_std.view(shape)
        return out


def pixels_to_channels(video: Tensor) -> Tensor:
    """Turn each 2 x 2 block of pixels of video [B, C, T, H, W] into four channels.

    In the result, of shape [B, 4C, T, H / 2, W / 2], a block's columns change slowest.
    """
    batch, channels, frames, height, width = video.shape
    x = video.reshape(batch, channels, frames, height // PATCH, PATCH, width // PATCH, PATCH)
    return x.permute(0, 1, 6, 4, 2, 3, 5).flatten(1, 3)
