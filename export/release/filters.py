"""The released filters of a stream's maps [B, C, T, h, w]; none changes the shape."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.filters import BandPass, SpatialFilter, frequency_matrix
from export.release.config import MotionExtraction, ReleaseConfig

SPATIAL = ("sobel", "scharr", "laplace")
MOTION = ("fft", "fft+sobel", "sobel+fft", "moft")


def temporal_filter(options: MotionExtraction, frames: int, fps: float) -> BandPass:
    """The release's FFT filter as a constant T x T matrix.

    Frequencies are compared as float32, as released: at a band's edge float64 decides otherwise.
    """
    frequency = torch.fft.rfftfreq(frames, d=1.0 / fps, dtype=torch.float32)
    keep = frequency <= options.freq_high
    if options.filter_type == "bandpass":
        keep &= frequency >= options.freq_low
    return BandPass(frequency_matrix(frames, keep))


class Moft(nn.Module):
    """Keep the channels that change most over time, zero the others; batch 1."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.share = share

    def forward(self, maps: Tensor) -> Tensor:
        channels = maps.shape[1]
        variance = maps.var(dim=2).mean(dim=(0, 2, 3))
        kept = variance.topk(max(1, int(channels * self.share))).indices
        mask = (kept[:, None] == torch.arange(channels, device=maps.device)).sum(0)
        return maps * mask.to(maps.dtype)[:, None, None, None]


def stream_filter(name: str | None, frames: int, config: ReleaseConfig) -> nn.Module:
    """The filter called `name` (of `SPATIAL` or `MOTION`) for maps of that many frames."""
    if name is None:
        return nn.Identity()
    if name in SPATIAL:
        return SpatialFilter(name)
    if name == "moft":
        return Moft(config.motion_extraction.prop_motion)
    temporal = temporal_filter(config.motion_extraction, frames, config.filter_fps)
    # Both orders of the name mean this one in the release.
    return temporal if name == "fft" else nn.Sequential(temporal, SpatialFilter("sobel"))
