"""The type, shape and meaning of every tensor between the graphs of a released policy."""

from __future__ import annotations

import math
from dataclasses import dataclass

from export.pipeline.config import FULL, Precisions
from export.pipeline.precision import STORED
from export.release.config import ReleaseConfig, StreamConfig
from v2a.bundle import TensorSpec


@dataclass(frozen=True, slots=True)
class TextLengths:
    """Tokens per instruction: of the policy's text encoder and of the video model's."""

    lang: int
    video: int


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes that a policy's configuration does not contain.

    `image` is the side of the image encoder's input in pixels, or 0 without an image encoder.
    """

    texts: TextLengths
    condition_tokens: int
    image: int = 0


def tensor_specs(
    config: ReleaseConfig, sizes: Sizes, precision: Precisions
) -> dict[str, TensorSpec]:
    """Return the spec of every graph input and output by key, with batch 1 and static shapes.

    K/V tensors, by far the largest, have the precision of their network if numpy supports it.
    """
    texts = sizes.texts
    core, wan, joints = config.core, config.wan, len(config.agilex_state_indices)
    raw, motion = config.raw_stream, config.motion_stream
    chunk, state, dim = config.action_chunk, config.state_dim, core.hidden_size
    frame = config.image_tokens // config.img_history
    slots = range(config.img_history)

    def core_kv(blocks: int, tokens: int) -> list[int]:
        return [blocks, 2, 1, core.num_heads, tokens, dim // core.num_heads]

    text_kv = [config.wan_layers_used, 2, 1, wan.num_heads, texts.video, wan.dim // wan.num_heads]
    language_blocks, visual_blocks = (core.depth + 1) // 2, core.depth // 2
    core_type, dit_type = (STORED[precision.get(part, FULL)] for part in ("core", "dit"))
    table = (
        ("lang_tokens", "float32", [1, texts.lang, config.lang_token_dim],
         "embedded instruction, padded with zeros"),
        ("lang_kv", core_type, core_kv(language_blocks, texts.lang),
         "language K/V of the action core"),
        ("lang_bias", "float32", [1, texts.lang], "added to the scores of the language"),
        ("text_tokens", "float32", [1, texts.video, wan.text_dim],
         "instruction, embedded for the video model"),
        ("text_kv", dit_type, text_kv, "text K/V of the video DiT"),
        ("frames_spatial", "uint8", [1, raw.num_frames, *raw.video_size, 3], "newest frame, RGB"),
        ("frames_motion", "uint8", [1, motion.num_frames, *motion.video_size, 3],
         "motion clip, RGB, oldest first"),
        ("latent_spatial", "float32", _latents(raw, wan.in_dim), "newest frame's latent"),
        ("latent_motion", "float32", _latents(motion, wan.in_dim), "latents, oldest first"),
        ("features_spatial", "float32", _features(raw, wan.dim), "boundary features"),
        ("features_motion", "float32", _features(motion, wan.dim), "motion features"),
        ("video_kv", core_type, core_kv(visual_blocks, sizes.condition_tokens),
         "condition K/V of the action core"),
        *((f"image_{slot}", "uint8", [1, config.num_cameras, sizes.image, sizes.image, 3],
           "one frame of all cameras, RGB, padded to a square") for slot in slots if sizes.image),
        *((f"image_tokens_{slot}", "float32", [1, frame, config.img_token_dim],
           "image encoder's patches of one frame, camera by camera") for slot in slots),
        *((f"frame_tokens_{slot}", "float32", [1, frame, dim], "the same, as wide as the core")
          for slot in slots),
        *((f"slot_{slot}", "int64", [1], "the frame's place in the history, 0 the oldest")
          for slot in slots),
        *((f"image_kv_{slot}", core_type, core_kv(visual_blocks, frame),
           "image K/V of one frame in its place") for slot in slots),
        ("noise", "float32", [1, chunk, state], "standard normal"),
        ("position_rad", "float32", [1, joints], "measured joint positions; grippers 0 to 1"),
        ("prefix", "float32", [1, chunk, state], "actions already decided, in the joints' slots"),
        ("prefix_mask", "float32", [1, chunk, 1], "1 where the prefix holds, 0 for a free action"),
        ("chunk_rad", "float32", [1, chunk, joints],
         "joint targets, step k is for capture + k * step_s; grippers 0 to 1"),
    )  # fmt: skip
    return {
        key: TensorSpec(name=_FRAMES.get(key, key), dtype=dtype, shape=shape, meaning=meaning,
                        unit="rad" if key.endswith("_rad") else None)
        for key, dtype, shape, meaning in table
    }  # fmt: skip


_FRAMES = {"frames_spatial": "frames", "frames_motion": "frames"}  # key -> name in both graphs


def _latents(stream: StreamConfig, channels: int) -> list[int]:
    return [1, channels, stream.encoded_frames, *stream.latent_size]


def _features(stream: StreamConfig, width: int) -> list[int]:
    return [1, math.prod(stream.token_grid), width]
