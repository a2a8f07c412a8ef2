"""Sizes and options of a released policy: the layout of a golden folder's `config.json`.

What the file leaves out (depth of the adaptors, all sizes of the compressors) is read from the
shapes of the weights, see `export/release/layout.py`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le, MinLen
from pydantic import BaseModel, ConfigDict, model_validator

from export.layers.config import DitConfig, Place, Positive
from v2a.config import Strict

VAE_STRIDE = 16  # pixels a latent, each way
VAE_TIME_STRIDE = 4  # frames a latent, after the first
PATCH = (1, 2, 2)  # latents a token of the video DiT: time, rows, columns
SMALLEST = VAE_STRIDE * PATCH[1]  # pixels each way, of one token

LANGUAGE_TOKENS = 32
"""Of one sentence, `max_lang_len` is the most. A graph has the length of its bundle's longest
instruction; this one without any."""

WAN_TEXT_TOKENS = 512
"""As released (`llama_vec` in scripts/agilex_model.py): Wan pads every text to its `text_len`, and
reads the padding too."""

Extraction = Literal["sobel", "scharr", "laplace", "fft", "fft+sobel", "sobel+fft", "moft"]


class Released(Strict):
    """Options that the arithmetic does not use are kept, for `unused_options` to name them: a
    training configuration holds many."""

    model_config = ConfigDict(extra="allow")


class WanConfig(Released):
    """Video DiT; `num_layers` in the checkpoint, of which the first `wan_layers_used` are run."""

    dim: Positive
    in_dim: Positive
    ffn_dim: Positive
    text_dim: Positive
    freq_dim: Positive
    num_heads: Positive
    num_layers: Positive


class CoreConfig(Released):
    """Blocks read language and video in turn, so there are two at least."""

    hidden_size: Positive
    depth: Annotated[int, Ge(2)]
    num_heads: Positive


class VaeConfig(Released):
    """Channels of the first of the encoder's four stages; its latents have `wan.in_dim`."""

    dim: Positive


class StreamConfig(Released):
    """One stream of video: frames, picture size [height, width] and the filter, if any.

    `latent_num_frames`: how many of the newest latent frames are used, all where left out.
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
                f"video_size {list(self.video_size)} must be multiples of {VAE_STRIDE}, "
                f"{SMALLEST} at least"
            )
        if self.latent_frames > self.encoded_frames:
            raise ValueError(
                f"latent_num_frames {self.latent_num_frames} exceeds the {self.encoded_frames} "
                f"that the VAE makes of {self.num_frames} frames"
            )
        if self.extraction == "moft" and self.latent_frames == 1:
            raise ValueError("extraction moft ranks channels by change over time: use 5 frames")
        return self

    @property
    def encoded_frames(self) -> int:
        """Latent frames that the VAE makes of the stream's video."""
        return 1 + (self.num_frames - 1) // VAE_TIME_STRIDE

    @property
    def latent_frames(self) -> int:
        """The newest of them, which the filter and the video DiT see."""
        return self.latent_num_frames or self.encoded_frames

    @property
    def latent_size(self) -> tuple[int, int]:
        """Height and width of a latent frame."""
        return self.video_size[0] // VAE_STRIDE, self.video_size[1] // VAE_STRIDE

    @property
    def token_grid(self) -> tuple[int, int, int]:
        """Frames, rows and columns of the video DiT's tokens."""
        height, width = self.latent_size
        return self.latent_frames, height // PATCH[1], width // PATCH[2]


class RawStreamConfig(StreamConfig):
    """The newest picture, encoded by itself; the release can also reuse the motion stream's."""

    latent_source: Literal["raw"] = "raw"


class MotionExtraction(Released):
    """Temporal filters: the band in Hz; the share of channels that `moft` keeps."""

    filter_type: Literal["bandpass", "lowpass"] = "bandpass"
    freq_low: float = 1.0
    freq_high: float = 10.0
    prop_motion: Annotated[float, Gt(0), Le(1)] = 0.04


class ReleaseConfig(Released):
    """A released policy. `filter_place`: on the latents, as released, or on the video DiT's
    features, as the paper's figure draws it."""

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
    solver: str = "dpmsolver++ order 2 (diffusers 0.27.2 defaults)"
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
        """The blocks of the video DiT that are run."""
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
    """Dotted names of the options in `config` that no code reads."""
    yield from (prefix + name for name in config.model_extra or {})
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from unused_options(value, f"{prefix}{name}.")
