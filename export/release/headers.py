"""Reads the shapes of a checkpoint's tensors from its files' headers, without the tensors."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open

from export.release.layout import Shapes
from export.release.weight_files import files_of, read_weights, unreadable


def read_shapes(path: Path) -> Shapes:
    """Return key -> shape for all files at `path`, a file or folder as for `read_weights`.

    Raises ConfigError if `path` is missing, or if a file is truncated or no checkpoint.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files_of(path):
        shapes.update(_safetensors(file) if file.suffix == ".safetensors" else _torch(file))
    return shapes


def _torch(file: Path) -> dict[str, tuple[int, ...]]:
    # Memory-mapped, so the tensors stay on disk.
    return {key: tuple(tensor.shape) for key, tensor in read_weights(file).items()}


def _safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    try:
        with safe_open(file, framework="np") as content:  # checks dtypes, shapes and offsets
            keys = content.keys()
            return {key: tuple(content.get_slice(key).get_shape()) for key in keys}
    except (SafetensorError, OSError) as error:
        raise unreadable(file, error) from None
