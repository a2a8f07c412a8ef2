"""The shapes of a checkpoint's tensors, from the headers of its files: no tensor is read."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from export.release.layout import Shapes
from export.release.weight_files import files_of, read_weights
from v2a.errors import ConfigError

_LENGTH = struct.Struct("<Q")
"""Of the JSON text that follows it (github.com/huggingface/safetensors)."""


def read_shapes(path: Path) -> Shapes:
    """By key, of all files at `path`, a file or folder as `read_weights` takes it.

    Raises ConfigError when nothing is there, a file is cut off, or it holds other things.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for file in files_of(path):
        shapes.update(_safetensors(file) if file.suffix == ".safetensors" else _torch(file))
    return shapes


def _torch(file: Path) -> dict[str, tuple[int, ...]]:
    # Mapped into memory, so its tensors stay on the disk; safetensors' reader would fetch them.
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
