"""Reads the sizes of adaptors and compressors from the shapes of a released checkpoint.

The release spreads these sizes over many options, with defaults that depend on each other. The
shapes contain them all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Shapes = Mapping[str, Sequence[int]]

ADAPTORS = {"lang": 2, "img": 2, "state": 3, "video": 2, "motion": 2}
"""Linear layers of each adaptor in the release's template (`mlp2x_gelu`, `mlp3x_gelu`)."""

HEAD_DIM = 64  # of the perceiver's attention, fixed in the release


@dataclass(frozen=True, slots=True)
class CompressorLayout:
    """One perceiver: `frames` x `tokens` latents of width `dim`, and `time_embeds` positions."""

    dim: int
    depth: int
    heads: int
    frames: int
    tokens: int
    time_embeds: int
    temporal: bool


@dataclass(frozen=True, slots=True)
class Layout:
    """The layers of each adaptor (0: one linear layer), and both compressors or none."""

    adaptors: Mapping[str, int]
    compressors: tuple[CompressorLayout, CompressorLayout] | None = None


def layout_of(shapes: Shapes) -> Layout:
    """Return the layout of a policy whose state dict has these shapes.

    Missing parts get the template's sizes, so that the loader can list the missing keys.
    """
    adaptors = {name: _adaptor_layers(shapes, name, usual) for name, usual in ADAPTORS.items()}
    if "video_token_compressor.latents" not in shapes:
        return Layout(adaptors)
    raw = _compressor(shapes, "video_token_compressor.")
    motion = _compressor(shapes, "motion_token_compressor.")
    return Layout(adaptors, (raw, motion))


def _adaptor_layers(shapes: Shapes, name: str, usual: int) -> int:
    if f"{name}_adaptor.weight" in shapes:
        return 0
    # Linear layers have even numbers, activations odd ones.
    return _count(shapes, f"{name}_adaptor.", ".weight") or usual


def _compressor(shapes: Shapes, prefix: str) -> CompressorLayout:
    latents = shapes.get(prefix + "latents", ())
    frames, tokens, dim = latents if len(latents) == 3 else (1, 1, 1)
    depth = _count(shapes, prefix + "layers.", ".0.to_q.weight")
    queries = shapes.get(prefix + "layers.0.0.to_q.weight", (HEAD_DIM, dim))
    return CompressorLayout(
        dim=dim,
        depth=depth,
        heads=queries[0] // HEAD_DIM,
        frames=frames,
        tokens=tokens,
        time_embeds=shapes.get(prefix + "time_pos_emb", (1, 1, dim))[0],
        temporal=prefix + "layers.0.1.qkv.weight" in shapes,
    )


def _count(shapes: Shapes, prefix: str, suffix: str) -> int:
    """Count the keys that consist of `prefix`, a number and `suffix`."""
    return sum(
        key[len(prefix) : len(key) - len(suffix)].isdigit()
        for key in shapes
        if key.startswith(prefix) and key.endswith(suffix)
    )
