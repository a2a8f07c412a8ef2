"""Every size and option of a policy, as one frozen pydantic model that a YAML file fills."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal

from annotated_types import Gt, MinLen
from pydantic import model_validator

from v2a.config import Strict

Positive = Annotated[int, Gt(0)]
Seconds = Annotated[float, Gt(0)]
Place = Literal["latent", "feature"]
Component = Literal["vae", "dit", "core"]
Precision = Literal["fp32", "fp16", "bf16"]
FULL: Final = "fp32"
Precisions = Mapping[Component, Precision]  # what is left out is FULL


class ImageConfig(Strict):
    camera: str = "top"
    height: Positive
    width: Positive


class JointConfig(Strict):
    """One joint of the action space; its limits also normalise the network's inputs."""

    name: str
    lower_rad: float
    upper_rad: float
    velocity_limit_rad_s: Annotated[float, Gt(0)]

    @model_validator(mode="after")
    def _ordered(self) -> JointConfig:
        if self.lower_rad >= self.upper_rad:
            raise ValueError(f"lower_rad {self.lower_rad} must be below upper_rad {self.upper_rad}")
        return self


class VaeConfig(Strict):
    """Strided convolutions per frame (channels, kernels, strides), then latents and causal time."""

    channels: Annotated[tuple[Positive, ...], MinLen(1)]
    kernels: Annotated[tuple[Positive, ...], MinLen(1)]
    strides: Annotated[tuple[Positive, ...], MinLen(1)]
    latent_channels: Positive
    temporal_kernel: Positive

    @model_validator(mode="after")
    def _one_length(self) -> VaeConfig:
        if not len(self.channels) == len(self.kernels) == len(self.strides):
            raise ValueError("channels, kernels and strides must have one entry a layer")
        return self


class DitConfig(Strict):
    """Video DiT. `max_frames` bounds the rotary table: context and predicted frames."""

    dim: Positive
    blocks: Positive
    heads: Positive
    ffn: Positive
    patch: tuple[Positive, Positive, Positive]
    freq_dim: Positive
    max_frames: Positive


class SpatialConfig(Strict):
    filter: Literal["sobel", "scharr", "laplace", "none"]
    place: Place


class MotionConfig(Strict):
    """The motion stream's clip and its temporal band-pass [low_hz, high_hz]."""

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


class FormerConfig(Strict):
    """Condition tokens that each stream is pressed into."""

    tokens: Positive


class ImageEncoderConfig(Strict):
    """Channels of its three stages (strides 4, 2, 2) and its spatial-softmax tokens."""

    channels: tuple[Positive, Positive, Positive]
    keypoints: Positive


class LanguageConfig(Strict):
    """Shape of an instruction's embedding [tokens, dim]."""

    tokens: Positive
    dim: Positive


class CoreConfig(Strict):
    """Action DiT and the observer's registers."""

    dim: Positive
    blocks: Positive
    heads: Positive
    ffn_ratio: Positive
    freq_dim: Positive
    registers: Positive
    register_blocks: Positive


class SamplerConfig(Strict):
    steps: Positive


class PrecisionConfig(Strict):
    """Of each network. The VAE is all convolutions, which ONNX lacks in bf16 at opset 18."""

    vae: Literal["fp32", "fp16"] = FULL
    dit: Precision = FULL
    core: Precision = FULL

    def by_component(self) -> Precisions:
        return {"vae": self.vae, "dit": self.dit, "core": self.core}


class PolicyConfig(Strict):
    """A whole policy: `chunk` targets of `step_s` each, condition ages clamped at the maximum."""

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
        """Height and width of the latent map."""
        height, width = self.image.height, self.image.width
        for stride in self.vae.strides:
            height, width = height // stride, width // stride
        return height, width

    @property
    def token_grid(self) -> tuple[int, int]:
        """Rows and columns of video tokens in one frame."""
        height, width = self.latent_size
        return height // self.dit.patch[1], width // self.dit.patch[2]
