"""Reads the shapes of a checkpoint's tensors from its files' headers, without the tensors."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from export.release.layout import Shapes
from export.release.weight_files import files_of, read_weights
from v2a.errors import ConfigError

_LENGTH = struct.Struct("<Q")
"""The length of the JSON header that follows (github.com/huggingface/safetensors)."""


def read_shapes(path: Path) -> Shapes:
    """Return key -> shape for all files at `path`, a file or folder as for `read_weights`.

    Raises ConfigError if `path` is missing, or if a file is truncated or no checkpoint.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files_of(path):
        shapes.update(_safetensors(file) if file.suffix == ".safetensors" else _torch(file))
    return shapes


def _torch(file: Path) -> dict[str, tuple[int, ...]]:
    # Memory-mapped, so the tensors stay on disk; safetensors' own reader would read them.
    return {key: tuple(tensor.shape) for key, tensor in read_weights(file).items()}


def _safetensors(file: Path) -> dict[str, tuple[int, ...]]:
    size = file.stat().st_size
    try:
        with file.open("rb") as content:
            (length,) = _LENGTH.unpack(content.read(_LENGTH.size))
            tensors = json.loads(content.read(min(length, size)))
        tensors.pop("__metadata__", None)
        end = max((tensor["data_offsets"][1] for tensor in tensors.values()), default=0)
        shapes = {key: tuple(map(int, tensor["shape"])) for key, tensor in tensors.items()}
        whole = size == _LENGTH.size + length + end
    except (struct.error, ValueError, LookupError, TypeError, AttributeError):
        whole = False
    if not whole:
        raise ConfigError(f"{file}: cut off, or not a checkpoint; copy it again")
    return shapes
