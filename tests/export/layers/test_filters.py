"""Filters against the released policy's tensors and against the plain FFT."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from export.layers.filters import BandPass, SpatialFilter, bandpass_matrix, on_features


@pytest.mark.parametrize("kind", ["sobel", "scharr", "laplace"])
def test_spatial_filter_is_the_released_one(kind: str, golden: dict[str, Tensor]) -> None:
    filtered = SpatialFilter(kind)(golden["vae.raw_latent"])
    torch.testing.assert_close(filtered, golden[f"filter.{kind}"])


def test_temporal_filter_is_the_released_one(golden: dict[str, Tensor]) -> None:
    latent = golden["vae.motion_latent"]
    keep = BandPass(bandpass_matrix(latent.shape[2], fps=16, low_hz=1.0, high_hz=7.0))
    torch.testing.assert_close(keep(latent), golden["filter.fft"], atol=1e-6, rtol=1e-5)
    both = SpatialFilter("sobel")(keep(latent))
    torch.testing.assert_close(both, golden["filter.fft+sobel"], atol=1e-5, rtol=1e-5)


@given(
    frames=st.integers(1, 20),
    fps=st.floats(1, 60),
    band=st.tuples(st.floats(0, 30), st.floats(0, 30)),
    seed=st.integers(0, 2**16),
)
def test_matrix_equals_fft(frames: int, fps: float, band: tuple[float, float], seed: int) -> None:
    low_hz, high_hz = min(band), max(band)
    signal = torch.randn(2, 3, frames, 2, 2, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft(signal, dim=2)
    # 1 / fps as spacing, as the matrix has it: a frequency on the band's edge falls alike.
    frequency = torch.fft.rfftfreq(frames, 1.0 / fps, dtype=torch.float64)
    keep = ((frequency >= low_hz) & (frequency <= high_hz)).reshape(-1, 1, 1)
    expected = torch.fft.irfft(spectrum * keep, n=frames, dim=2)
    filtered = BandPass(bandpass_matrix(frames, fps, low_hz, high_hz))(signal)
    torch.testing.assert_close(filtered, expected, atol=1e-5, rtol=1e-4)


def test_bandpass_takes_a_standing_picture_away() -> None:
    still = torch.rand(1, 2, 1, 3, 3).expand(1, 2, 6, 3, 3)
    moved = BandPass(bandpass_matrix(6, fps=20, low_hz=3.0, high_hz=7.0))(still)
    torch.testing.assert_close(moved, torch.zeros_like(moved), atol=1e-6, rtol=0)


def test_features_are_filtered_channel_by_channel() -> None:
    features = torch.rand(2, 3, 5, 4, 7)
    sobel = SpatialFilter("sobel")
    filtered = on_features(sobel, features)
    one_channel = sobel(features[:, None, ..., 6])[:, 0]
    torch.testing.assert_close(filtered[..., 6], one_channel)
