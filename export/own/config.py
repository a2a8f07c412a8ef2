"""The models of a policy's YAML file: all sizes and options of this project's own policy."""

from __future__ import annotations

from typing import Annotated

from annotated_types import MinLen
from pydantic import model_validator

from export.layers.config import DitConfig, MotionConfig, Positive, SpatialConfig
from export.pipeline.config import JointConfig, PrecisionConfig, Seconds
from v2a.config import Strict


class ImageConfig(Strict):
    """The camera image in pixels."""

    camera: str = "top"
    height: Positive
    width: Positive


class VaeConfig(Strict):
    """The video VAE: strided convolutions per frame, then a causal convolution over time.

    `channels`, `kernels` and `strides` have one entry per layer.
    """

    channels: Annotated[tuple[Positive, ...], MinLen(1)]
    kernels: Annotated[tuple[Positive, ...], MinLen(1)]
    strides: Annotated[tuple[Positive, ...], MinLen(1)]
    latent_channels: Positive
    temporal_kernel: Positive

    @model_validator(mode="after")
    def _one_length(self) -> VaeConfig:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError("channels, kernels and strides must have one entry per layer")
        return self


class FormerConfig(Strict):
    """The number of condition tokens per stream."""

    tokens: Positive


class ImageEncoderConfig(Strict):
    """The image encoder: channels of three stages (strides 4, 2, 2) and number of keypoints."""

    channels: tuple[Positive, Positive, Positive]
    keypoints: Positive


class LanguageConfig(Strict):
    """The shape of an instruction's embedding, [tokens, dim]."""

    tokens: Positive
    dim: Positive


class CoreConfig(Strict):
    """The action DiT and the observer's registers."""

    dim: Positive
    blocks: Positive
    heads: Positive
    ffn_ratio: Positive
    freq_dim: Positive
    registers: Positive
    register_blocks: Positive


class SamplerConfig(Strict):
    """The number of solver steps."""

    steps: Positive


class PolicyConfig(Strict):
    """A whole policy.

    A chunk has `chunk` targets, `step_s` apart. Condition ages are clamped to
    `condition_age_max_s`.
    """

    name: str
    description: str = ""
    image: ImageConfig
    joints: Annotated[tuple[JointConfig, ...], MinLen(1)]
    chunk: Positive
    step_s: Seconds
    condition_age_max_s: Seconds
    vae: VaeConfig
    dit: DitConfig
    spatial: SpatialConfig
    motion: MotionConfig
    former: FormerConfig
    image_encoder: ImageEncoderConfig
    language: LanguageConfig
    core: CoreConfig
    sampler: SamplerConfig
    precision: PrecisionConfig = PrecisionConfig()

    @model_validator(mode="after")
    def _sizes_fit(self) -> PolicyConfig:
        down = 1
        for stride in self.vae.strides:
            down *= stride
        _, patch_h, patch_w = self.dit.patch
        for label, size, step in (
            ("image.height", self.image.height, down * patch_h),
            ("image.width", self.image.width, down * patch_w),
            ("image.height", self.image.height, 16),
            ("image.width", self.image.width, 16),
            ("dit.dim", self.dit.dim, 2 * self.dit.heads),
            ("core.dim", self.core.dim, 2 * self.core.heads),
        ):
            if size % step:
                raise ValueError(f"{label} {size} must be a multiple of {step}")
        if self.motion.frames > self.dit.max_frames:
            raise ValueError(
                f"motion.frames {self.motion.frames} exceeds dit.max_frames {self.dit.max_frames}"
            )
        return self

    @property
    def latent_size(self) -> tuple[int, int]:
        """Rows and columns of the latent map."""
        height, width = self.image.height, self.image.width
        for stride in self.vae.strides:
            height, width = height // stride, width // stride
        return height, width

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of video tokens per frame."""
        height, width = self.latent_size
        return height // self.dit.patch[1], width // self.dit.patch[2]
