"""Sizes and options of networks that several policies share."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Gt
from pydantic import model_validator

from v2a.config import Strict

Positive = Annotated[int, Gt(0)]
Place = Literal["latent", "feature"]


class DitConfig(Strict):
    """The video DiT. `max_frames` is the length of its rotary table in frames."""

    dim: Positive
    blocks: Positive
    heads: Positive
    ffn: Positive
    patch: tuple[Positive, Positive, Positive]
    freq_dim: Positive
    max_frames: Positive


class SpatialConfig(Strict):
    """The spatial filter, and whether it acts on latents or on the video DiT's features."""

    filter: Literal["sobel", "scharr", "laplace", "none"]
    place: Place


class MotionConfig(Strict):
    """The motion stream's clip and its temporal band-pass from `low_hz` to `high_hz`."""

    frames: Positive
    fps: Annotated[float, Gt(0)]
    filter: Literal["bandpass", "none"]
    low_hz: float
    high_hz: float
    place: Place

    @model_validator(mode="after")
    def _ordered(self) -> MotionConfig:
        if self.low_hz > self.high_hz:
            raise ValueError(f"low_hz {self.low_hz} must not be above high_hz {self.high_hz}")
        return self
