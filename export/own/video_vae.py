"""Causal video VAE: frames to latents; the decoder serves training only.

A frame's latent depends on that frame and earlier ones of the same clip, never on later ones.
One frame alone (the spatial stream) gives a code that cannot carry velocity.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from export.layers.blocks import pixels_to_unit
from export.own.config import VaeConfig


class CausalConv3d(nn.Module):
    """3-D convolution [B, C, T, h, w], size-preserving, zero-padded in front only along time."""

    def __init__(self, channels: int, temporal_kernel: int) -> None:
        super().__init__()
        self.past = temporal_kernel - 1
        self.conv = nn.Conv3d(channels, channels, (temporal_kernel, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(functional.pad(x, (0, 0, 0, 0, self.past, 0)))
        return out


class VideoVae(nn.Module):
    """Encoder. Frames [B, T, H, W, 3] RGB 0..255 (uint8 or float) -> latents [B, C, T, h, w].

    Strided convolutions run per frame, as 2-D ones over B * T; time is mixed at latent size.
    """

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for out, kernel, stride in zip(
            config.channels, config.kernels, config.strides, strict=True
        ):
            layers += [nn.Conv2d(channels, out, kernel, stride, (kernel - stride) // 2), nn.SiLU()]
            channels = out
        layers.append(nn.Conv2d(channels, config.latent_channels, 1))
        self.per_frame = nn.Sequential(*layers)
        self.activation = nn.SiLU()
        self.temporal = CausalConv3d(config.latent_channels, config.temporal_kernel)

    def forward(self, frames: Tensor) -> Tensor:
        batch, count = frames.shape[:2]
        pixels = pixels_to_unit(frames).flatten(0, 1).permute(0, 3, 1, 2)
        latents = self.per_frame(pixels).unflatten(0, (batch, count)).transpose(1, 2)
        out: Tensor = latents + self.temporal(self.activation(latents))
        return out


class VaeDecoder(nn.Module):
    """Latents [B, C, T, h, w] -> frames [B, T, 3, H, W] in about [-1, 1], frame by frame."""

    def __init__(self, config: VaeConfig) -> None:
        super().__init__()
        widths = [*reversed(config.channels), 3]
        layers: list[nn.Module] = [nn.Conv2d(config.latent_channels, widths[0], 1)]
        for i, (kernel, stride) in enumerate(
            zip(reversed(config.kernels), reversed(config.strides), strict=True)
        ):
            padding = (kernel - stride) // 2
            up = nn.ConvTranspose2d(widths[i], widths[i + 1], kernel, stride, padding)
            layers += [nn.SiLU(), up]
        self.per_frame = nn.Sequential(*layers)

    def forward(self, latents: Tensor) -> Tensor:
        batch, _, count = latents.shape[:3]
        frames = self.per_frame(latents.transpose(1, 2).flatten(0, 1))
        out: Tensor = frames.unflatten(0, (batch, count))
        return out
