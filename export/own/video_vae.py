"""The causal video VAE, which maps frames to latents. The decoder serves training only.

A frame's latent depends on that frame and the earlier ones of its clip. The latent of a single
frame (the spatial stream) contains no velocity.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from export.layers.blocks import pixels_to_unit
from export.own.config import VaeConfig


class CausalConv3d(nn.Module):
    """3-D convolution that pads time only at the front, so no output depends on later frames."""

    def __init__(self, channels: int, temporal_kernel: int) -> None:
        super().__init__()
        self.past = temporal_kernel - 1
        self.conv = nn.Conv3d(channels, channels, (temporal_kernel, 3, 3), padding=(0, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x [B, C, T, h, w]; the shape stays."""
        out: Tensor = self.conv(functional.pad(x, (0, 0, 0, 0, self.past, 0)))
        return out


class VideoVae(nn.Module):
    """The encoder. Strided 2-D convolutions run per frame; one causal layer mixes the latents."""

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
        """Encode frames [B, T, H, W, 3], RGB in 0..255, as latents [B, C, T, h, w]."""
        batch, count = frames.shape[:2]
        pixels = pixels_to_unit(frames).flatten(0, 1).permute(0, 3, 1, 2)
        latents = self.per_frame(pixels).unflatten(0, (batch, count)).transpose(1, 2)
        out: Tensor = latents + self.temporal(self.activation(latents))
        return out


class VaeDecoder(nn.Module):
    """The decoder, which works frame by frame."""

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
        """Decode latents [B, C, T, h, w] to frames [B, T, 3, H, W] in about -1..1."""
        batch, _, count = latents.shape[:3]
        frames = self.per_frame(latents.transpose(1, 2).flatten(0, 1))
        out: Tensor = frames.unflatten(0, (batch, count))
        return out
