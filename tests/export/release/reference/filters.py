"""The release's filters of maps [1, C, T, h, w]."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

_KERNELS = {"sobel": ((1, 2, 1), (-1, 0, 1)), "scharr": ((3, 10, 3), (-1, 0, 1))}


def filtered(name: str | None, maps: Tensor, config: dict[str, Any]) -> Tensor:
    if name in ("fft+sobel", "sobel+fft"):
        return edges("sobel", band(maps, config))
    if name == "fft":
        return band(maps, config)
    if name == "moft":
        return most_moving(maps, config["motion_extraction"]["prop_motion"])
    return maps if name is None else edges(name, maps)


def edges(name: str, maps: Tensor) -> Tensor:
    """Sums of the nine neighbours, zeros around."""
    height, width = maps.shape[-2:]
    padded = functional.pad(maps, (1, 1, 1, 1))

    def at(row: int, column: int) -> Tensor:
        return padded[..., row : row + height, column : column + width]

    if name == "laplace":
        return (at(0, 1) + at(1, 0) + at(1, 2) + at(2, 1) - 4 * maps).abs()
    smooth, slope = _KERNELS[name]
    nine = [(i, j) for i in range(3) for j in range(3)]
    across = sum((smooth[i] * slope[j] * at(i, j) for i, j in nine), torch.zeros(()))
    down = sum((slope[i] * smooth[j] * at(i, j) for i, j in nine), torch.zeros(()))
    return (across**2 + down**2 + 1e-6).sqrt()


def band(maps: Tensor, config: dict[str, Any]) -> Tensor:
    options, frames = config["motion_extraction"], maps.shape[2]
    hertz = torch.fft.rfftfreq(frames, d=1.0 / config["filter_fps"])
    keep = hertz <= options["freq_high"]
    if options["filter_type"] == "bandpass":
        keep = keep & (hertz >= options["freq_low"])
    spectrum = torch.fft.rfft(maps, dim=2) * keep[:, None, None]
    filtered: Tensor = torch.fft.irfft(spectrum, n=frames, dim=2)
    return filtered


def most_moving(maps: Tensor, share: float) -> Tensor:
    frames = maps.shape[2]
    change = (maps - maps.mean(2, keepdim=True)).pow(2).sum(2) / (frames - 1)
    order = change.mean((0, 2, 3)).argsort(descending=True)[: max(1, int(maps.shape[1] * share))]
    kept = torch.zeros_like(maps)
    kept[:, order] = maps[:, order]
    return kept
