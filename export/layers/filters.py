"""The spatial filters, which keep boundaries, and the temporal band-pass, which keeps motion.

Both filter maps [B, C, T, h, w]. These are latents before the video DiT, as released, or its
features, as the paper draws it.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from export.layers.config import MotionConfig, SpatialConfig

_SOBEL = ((-1.0, 0.0, 1.0), (-2.0, 0.0, 2.0), (-1.0, 0.0, 1.0))
_SCHARR = ((-3.0, 0.0, 3.0), (-10.0, 0.0, 10.0), (-3.0, 0.0, 3.0))
_LAPLACE = ((0.0, 1.0, 0.0), (1.0, -4.0, 1.0), (0.0, 1.0, 0.0))


def _gradient(kernel: tuple[tuple[float, ...], ...]) -> Tensor:
    x = torch.tensor(kernel)
    return torch.stack([x, x.T])


KERNELS: dict[str, Tensor] = {
    "sobel": _gradient(_SOBEL),
    "scharr": _gradient(_SCHARR),
    "laplace": torch.tensor([_LAPLACE]),
}


def _gradient_length(response: Tensor) -> Tensor:
    """Return the length [N, h, w] of gradients [N, 2, h, w], with a finite slope at 0."""
    return (response.square().sum(1) + 1e-6).sqrt()


class SpatialFilter(nn.Module):
    """Computes the strength of edges in each channel of each frame.

    Padding is zero, and the arithmetic equals the released policy's.
    """

    kernels: Tensor

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.length: Callable[[Tensor], Tensor] = (
            torch.abs if kind == "laplace" else _gradient_length
        )
        self.register_buffer("kernels", KERNELS[kind].unsqueeze(1), persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Filter maps [B, C, T, h, w]; the shape stays."""
        planes = maps.reshape(-1, 1, *maps.shape[-2:])
        response = functional.conv2d(planes, self.kernels, padding=1)
        return self.length(response).reshape(maps.shape)


def bandpass_matrix(frames: int, fps: float, low_hz: float, high_hz: float) -> Tensor:
    """Return the matrix [T, T] that keeps frequencies from low_hz to high_hz of `fps` frames/s."""
    frequency = torch.fft.rfftfreq(frames, 1.0 / fps, dtype=torch.float64)
    return frequency_matrix(frames, (frequency >= low_hz) & (frequency <= high_hz))


def frequency_matrix(frames: int, keep: Tensor) -> Tensor:
    """Return irfft(keep * rfft(.)) as a matrix [T, T], with keep bool [T // 2 + 1].

    A constant matrix is needed because TensorRT has no DFT.
    """
    spectrum = torch.fft.rfft(torch.eye(frames, dtype=torch.float64), dim=0)
    matrix: Tensor = torch.fft.irfft(spectrum * keep[:, None], n=frames, dim=0)
    return matrix.float()


class BandPass(nn.Module):
    """Applies a [T, T] matrix along the time axis of maps."""

    matrix: Tensor

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix, persistent=False)

    def forward(self, maps: Tensor) -> Tensor:
        """Filter maps [B, C, T, h, w]; the shape stays."""
        return (self.matrix @ maps.flatten(3)).reshape(maps.shape)


def spatial_filter(config: SpatialConfig) -> nn.Module:
    """Build the configured spatial filter."""
    return nn.Identity() if config.filter == "none" else SpatialFilter(config.filter)


def motion_filter(config: MotionConfig) -> nn.Module:
    """Build the configured temporal filter."""
    if config.filter == "none":
        return nn.Identity()
    return BandPass(bandpass_matrix(config.frames, config.fps, config.low_hz, config.high_hz))


def on_features(filter_maps: Callable[[Tensor], Tensor], features: Tensor) -> Tensor:
    """Apply a filter of maps [B, D, T, h, w] to DiT features [B, T, h, w, D]."""
    return filter_maps(features.permute(0, 4, 1, 2, 3)).permute(0, 2, 3, 4, 1)
