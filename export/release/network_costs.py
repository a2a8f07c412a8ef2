"""Computes the cost of a released policy's frozen networks and token compressors."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from export.layers.costs import Work, attend, convolve, linear, mlp, norm
from export.release.config import VAE_TIME_STRIDE, ReleaseConfig, StreamConfig
from export.release.layout import HEAD_DIM, CompressorLayout


@dataclass(frozen=True, slots=True)
class ImageEncoder:
    """A vision transformer without its pooling head; `patch` is in pixels."""

    patch: int
    layers: int
    ffn: int


IMAGE_ENCODERS = {(729, 1152): ImageEncoder(patch=14, layers=27, ffn=4304)}
"""(tokens, width) of the output -> encoder. The release uses google/siglip-so400m-patch14-384
(its config.json) without the pooling head."""


def image_encoder(config: ReleaseConfig, encoder: ImageEncoder) -> Work:
    """Cost of encoding one frame of every camera."""
    images, tokens, dim = config.num_cameras, config.patches_per_image, config.img_token_dim
    layer = linear(images * tokens, dim, dim) * 4 + norm(dim, vectors=4)
    layer += mlp(images * tokens, dim, encoder.ffn, dim)
    layer += Work(flops=images * attend(tokens, tokens, dim).flops)
    pixels = images * tokens * encoder.patch**2
    work = convolve(pixels, images * tokens, 3, dim, encoder.patch**2)
    return work + norm(tokens * dim) + layer * encoder.layers + norm(dim, vectors=2)


def vae_encoder(config: ReleaseConfig, stream: StreamConfig) -> Work:
    """Cost of the encoder in `export.release.wan_vae`. Its convolutions have 27 taps."""
    dim, latent = config.vae.dim, 2 * config.wan.in_dim
    frames = 1 + (stream.num_frames - 1) // VAE_TIME_STRIDE * VAE_TIME_STRIDE
    pixels = prod(stream.video_size) // 4  # each 2 x 2 block becomes one position
    work, channels = _causal(frames * pixels, 3 * 4, dim), dim
    for multiple, halves_time in ((1, False), (2, True), (4, True)):
        outputs = multiple * dim
        work += _residual(frames * pixels, channels, outputs)
        work += _residual(frames * pixels, outputs, outputs)
        work += convolve(frames * pixels, frames * pixels // 4, outputs, outputs, 9)
        pixels //= 4
        if halves_time:
            later = frames // 2  # the first frame passes unchanged
            half = convolve(frames * pixels, later * pixels, outputs, outputs, 3)
            work += half if frames > 1 else norm(half.weights)
            frames = 1 + later
        channels = outputs
    work += _residual(frames * pixels, channels, channels) * 4  # the last stage, and the middle's
    work += norm(channels) + convolve(frames * pixels, frames * pixels, channels, 3 * channels, 1)
    work += Work(flops=frames * attend(pixels, pixels, channels).flops)
    work += convolve(frames * pixels, frames * pixels, channels, channels, 1)
    work += norm(channels) + _causal(frames * pixels, channels, latent)
    return work + convolve(frames * pixels, frames * pixels, latent, latent, 1)


def _causal(positions: int, inputs: int, outputs: int) -> Work:
    return convolve(positions, positions, inputs, outputs, 27)


def _residual(positions: int, inputs: int, outputs: int) -> Work:
    work = norm(inputs) + _causal(positions, inputs, outputs)
    work += norm(outputs) + _causal(positions, outputs, outputs)
    shortcut = convolve(positions, positions, inputs, outputs, 1)
    return work if inputs == outputs else work + shortcut


def token_compressor(layout: CompressorLayout, read: int, features: int) -> Work:
    """Cost of one token compressor over `read` tokens of width `features`."""
    dim, inner = layout.dim, layout.heads * HEAD_DIM
    latents = layout.frames * layout.tokens
    layer = norm(dim, vectors=6)  # of media, of latents, of the feed-forward
    layer += linear(latents, dim, inner, bias=False) + linear(latents, inner, dim, bias=False)
    layer += linear(read + latents, dim, inner, bias=False) * 2
    keys = read // layout.frames + layout.tokens
    layer += Work(flops=layout.frames * attend(layout.tokens, keys, inner).flops)
    if layout.temporal:
        layer += mlp(latents, dim, 3 * dim) + linear(latents, dim, dim)
        layer += Work(flops=layout.tokens * attend(layout.frames, layout.frames, dim).flops)
    layer += mlp(latents, dim, 4 * dim, dim)
    own = norm(latents * dim) + norm(layout.time_embeds * dim) + norm(dim, vectors=2)
    return mlp(read, features, 2 * dim, dim) + layer * layout.depth + own
