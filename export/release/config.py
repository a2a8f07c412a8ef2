"""Sizes and options of a released policy, in the format of a golden folder's `config.json`.

The file leaves out the adaptors' depth and the compressors' sizes. `export/release/layout.py` reads
them from the shapes of the weights.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict, model_validator

from export.layers.config import DitConfig, Place, Positive
from v2a.config import Strict

VAE_STRIDE = 16  # pixels per latent in each direction
VAE_TIME_STRIDE = 4  # frames per latent, after the first
PATCH = (1, 2, 2)  # latents per token of the video DiT: time, rows, columns
SMALLEST = VAE_STRIDE * PATCH[1]  # pixels per token in each direction

LANGUAGE_TOKENS = 32
"""Tokens of an instruction in a policy without instructions. Otherwise a graph has the length of
its bundle's longest instruction, at most `max_lang_len`."""

WAN_TEXT_TOKENS = 512
"""As released (`llama_vec` in scripts/agilex_model.py): Wan pads every text to its `text_len` and
also reads the padding."""

Solver = Literal["dpmsolver++ order 2 (diffusers 0.27.2 defaults)", "dpmsolver++"]
Channels = Literal["rgb", "bgr"]
Extraction = Literal["sobel", "scharr", "laplace", "fft", "fft+sobel", "sobel+fft", "moft"]


class ExtraAllowed(Strict):
    """Base of models that keep unknown options, so that `unused_options` can name them.

    A training configuration has many options that the arithmetic does not use.
    """

    model_config = ConfigDict(extra="allow")


class WanConfig(ExtraAllowed):
    """The video DiT. The checkpoint has `num_layers`; the first `wan_layers_used` are run."""

    dim: Positive
    in_dim: Positive
    ffn_dim: Positive
    text_dim: Positive
    freq_dim: Positive
    num_heads: Positive
    num_layers: Positive


class CoreConfig(ExtraAllowed):
    """The action core. Blocks read language and video in turn, so it has at least two."""

    hidden_size: Positive
    depth: Annotated[int, Ge(2)]
    num_heads: Positive


class VaeConfig(ExtraAllowed):
    """The video VAE. `dim` is the channels of the encoder's first stage."""

    dim: Positive


class StreamConfig(ExtraAllowed):
    """One video stream: its frames, their size [height, width] and its filter, if any.

    `latent_num_frames` is the number of newest latent frames to use; default: all.
    """

    num_frames: Positive
    latent_num_frames: Positive | None = None
    latent_frame_select: Literal["last"] = "last"  # the release's ablations have others
    video_size: tuple[Positive, Positive]
    extraction: Extraction | None = None

    @model_validator(mode="after")
    def _sizes_fit(self) -> StreamConfig:
        if any(size % VAE_STRIDE or size < SMALLEST for size in self.video_size):
            raise ValueError(
                f"video_size {list(self.video_size)} must be multiples of {VAE_STRIDE} and at "
                f"least {SMALLEST}"
            )
        if self.latent_frames > self.encoded_frames:
            raise ValueError(
                f"latent_num_frames {self.latent_num_frames} exceeds the {self.encoded_frames} "
                f"that the VAE makes of {self.num_frames} frames"
            )
        if self.extraction == "moft" and self.latent_frames == 1:
            raise ValueError("extraction moft needs change over time: use at least 5 frames")
        return self

    @property
    def encoded_frames(self) -> int:
        """Number of latent frames of the stream's video."""
        return 1 + (self.num_frames - 1) // VAE_TIME_STRIDE

    @property
    def latent_frames(self) -> int:
        """Number of newest latent frames that the filter and the video DiT use."""
        return self.latent_num_frames or self.encoded_frames

    @property
    def latent_size(self) -> tuple[int, int]:
        """Rows and columns of a latent frame."""
        return self.video_size[0] // VAE_STRIDE, self.video_size[1] // VAE_STRIDE

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the video DiT's tokens."""
        height, width = self.latent_size
        return self.latent_frames, height // PATCH[1], width // PATCH[2]


class RawStreamConfig(StreamConfig):
    """The newest frame, encoded alone. The release's option to reuse the motion stream's latent
    is not supported."""

    latent_source: Literal["raw"] = "raw"


class MotionExtraction(ExtraAllowed):
    """The temporal filters: the band in Hz, and the share of channels that `moft` keeps."""

    filter_type: Literal["bandpass", "lowpass"] = "bandpass"
    freq_low: float = 1.0
    freq_high: float = 10.0
    prop_motion: Annotated[float, Gt(0), Le(1)] = 0.04


class ReleaseConfig(ExtraAllowed):
    """A released policy.

    `filter_place` puts the filters on the latents, as released, or on the video DiT's features, as
    the paper's figure draws it.
    """

    wan: WanConfig
    wan_layers_used: Positive
    core: CoreConfig
    vae: VaeConfig
    raw_stream: RawStreamConfig
    motion_stream: StreamConfig
    filter_place: Place = "latent"
    filter_fps: Annotated[float, Gt(0)] = 16.0
    motion_extraction: MotionExtraction = MotionExtraction()
    compressor: Any = None  # null or its options; the weights hold its sizes
    action_chunk: Positive
    state_dim: Positive
    img_history: Positive
    num_cameras: Positive
    patches_per_image: Positive
    img_token_dim: Positive
    lang_token_dim: Positive
    max_lang_len: Positive
    ctrl_freq: Annotated[float, Gt(0)]
    denoise_steps: Positive
    prediction_type: Literal["sample"] = "sample"
    beta_schedule: Literal["squaredcos_cap_v2"] = "squaredcos_cap_v2"
    solver: Solver = "dpmsolver++ order 2 (diffusers 0.27.2 defaults)"
    agilex_state_indices: Annotated[tuple[int, ...], MinLen(1)]

    @model_validator(mode="after")
    def _sizes_fit(self) -> ReleaseConfig:
        for label, size, step in (
            ("wan.dim", self.wan.dim, 2 * self.wan.num_heads),
            ("core.hidden_size", self.core.hidden_size, self.core.num_heads),
        ):
            if size % step:
                raise ValueError(f"{label} {size} must be a multiple of {step}")
        if self.wan_layers_used > self.wan.num_layers:
            raise ValueError(
                f"wan_layers_used {self.wan_layers_used} exceeds wan.num_layers "
                f"{self.wan.num_layers}"
            )
        slots = self.agilex_state_indices
        if not all(0 <= slot < self.state_dim for slot in slots) or len(set(slots)) < len(slots):
            raise ValueError(f"agilex_state_indices must be different, in 0..{self.state_dim - 1}")
        return self

    @property
    def image_tokens(self) -> int:
        return self.img_history * self.num_cameras * self.patches_per_image

    @property
    def dit(self) -> DitConfig:
        """The video DiT, with only the blocks that are run."""
        wan = self.wan
        frames = max(self.raw_stream.latent_frames, self.motion_stream.latent_frames)
        return DitConfig(
            dim=wan.dim,
            blocks=self.wan_layers_used,
            heads=wan.num_heads,
            ffn=wan.ffn_dim,
            patch=PATCH,
            freq_dim=wan.freq_dim,
            max_frames=frames,
        )


def unused_options(config: BaseModel, prefix: str = "") -> Iterator[str]:
    """Yield the dotted names of options in `config` that no code reads."""
    yield from (prefix + name for name in config.model_extra or {})
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from unused_options(value, f"{prefix}{name}.")
