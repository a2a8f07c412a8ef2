"""The released filters of a stream's maps [B, C, T, h, w]. No filter changes the shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.filters import BandPass, SpatialFilter, frequency_matrix
from export.release.config import MotionExtraction, ReleaseConfig

SPATIAL = ("sobel", "scharr", "laplace")
MOTION = ("fft", "fft+sobel", "sobel+fft", "moft")


def temporal_filter(options: MotionExtraction, frames: int, fps: float) -> BandPass:
    """Build the release's FFT filter as a constant matrix [T, T].

    Frequencies are compared in float32, as released: float64 differs at the edge of a band.
    """
    frequency = torch.fft.rfftfreq(frames, d=1.0 / fps, dtype=torch.float32)
    keep = frequency <= options.freq_high
    if options.filter_type == "bandpass":
        keep &= frequency >= options.freq_low
    return BandPass(frequency_matrix(frames, keep))


class Moft(nn.Module):
    """Keeps the channels that change most over time and zeroes the others. The batch size is 1."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        """Filter maps [1, C, T, h, w]; the shape stays."""
        channels = maps.shape[1]
        variance = maps.var(dim=2).mean(dim=(0, 2, 3))
        kept = variance.topk(max(1, int(channels * self.share))).indices
        mask = (kept[:, None] == torch.arange(channels, device=maps.device)).sum(0)
        return maps * mask.to(maps.dtype)[:, None, None, None]


def stream_filter(name: str | None, frames: int, config: ReleaseConfig) -> nn.Module:
    """Build the filter `name`, of `SPATIAL` or `MOTION`, for maps with `frames` frames."""
    if name is None:
        return nn.Identity()
    if name in SPATIAL:
        return SpatialFilter(name)
    if name == "moft":
        return Moft(config.motion_extraction.prop_motion)
    temporal = temporal_filter(config.motion_extraction, frames, config.filter_fps)
    # The release treats both orders of the name alike.
    return temporal if name == "fft" else nn.Sequential(temporal, SpatialFilter("sobel"))
