"""Reads the weight files of the release and of Wan2.2 in any layout, as key -> tensor.

Tensors stay memory-mapped until they are read, as a checkpoint may exceed the free memory. No code
in a file is executed.
"""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from export.pipeline.state_dict import Weights, without_prefix
from v2a.errors import ConfigError

FILES_OF_A_FOLDER = (
    "pytorch_model.bin",  # written at the end of training; also in a checkpoint's `ema/`
    "pytorch_model/mp_rank_00_model_states.pt",  # written by DeepSpeed
    "mp_rank_00_model_states.pt",  # the same, for the folder `pytorch_model` itself
    "*.index.json",  # maps tensors to shards
    "*.safetensors",
)
"""The files that a checkpoint folder may hold. The first match is read."""

WRAPPERS = ("module", "state_dict", "model_state", "policy")
"""Keys under which DeepSpeed, Lightning, Wan's VAE and this project's training save tensors."""

PIECES = ("zero_pp_rank_*_model_states.pt", "pytorch_model/zero_pp_rank_*_model_states.pt")
"""DeepSpeed's ZeRO-3 splits each tensor over these files, one for each process."""

_SHOWN_KEYS = 10


def read_weights(path: Path) -> Weights:
    """Read the tensors at `path`, a file or a folder as in `FILES_OF_A_FOLDER`.

    Raises ConfigError if `path` is missing, or if a file is truncated or no checkpoint.
    """
    merged: dict[str, Tensor] = {}
    for file in files_of(path):
        weights = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
        if double := merged.keys() & weights.keys():
            raise ConfigError(f"{file}: {listed(double)} also in another shard; keep one of them")
        merged.update(weights)
    return without_prefix(merged)


def listed(keys: set[str]) -> str:
    """Format keys as `3 keys: a, b, c`, with at most ten names."""
    first = ", ".join(sorted(keys)[:_SHOWN_KEYS])
    more = ", ..." if len(keys) > _SHOWN_KEYS else ""
    return f"{len(keys)} key{'s' if len(keys) > 1 else ''}: {first}{more}"


def files_of(path: Path) -> list[Path]:
    """Return the files of the checkpoint at `path`. Raises ConfigError if there is none."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; give a checkpoint")
    if path.name.endswith(".index.json"):
        return shards_of(path)
    if path.is_file():
        return [path]
    if any(found for pattern in PIECES for found in path.glob(pattern)):
        raise ConfigError(
            f"{path}: the weights are in pieces of DeepSpeed's ZeRO-3; join them with its "
            "zero_to_fp32.py, and give the file that it writes"
        )
    for pattern in FILES_OF_A_FOLDER:
        if found := sorted(path.glob(pattern)):
            if folders := [file for file in found if not file.is_file()]:
                raise ConfigError(f"{folders[0]}: is not a file; give the file with the weights")
            return shards_of(found[0]) if pattern == "*.index.json" else found
    raise ConfigError(f"{path}: holds no checkpoint; expected {', '.join(FILES_OF_A_FOLDER)}")


def shards_of(index: Path) -> list[Path]:
    """Return the files that an index of shards names. Raises ConfigError if one isn't beside it."""
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): index.parent / str(name) for name in shard_of.values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        fix = "copy it again"
        raise ConfigError(f"{index}: not an index of shards ('weight_map'); {fix}") from None
    if outside := {name for name in shards if Path(name).name != name}:
        fix = "give a checkpoint whose index names files beside it"
        raise ConfigError(f"{index}: names shards elsewhere: {', '.join(sorted(outside))}; {fix}")
    if absent := {name for name, file in shards.items() if not file.is_file()}:
        raise ConfigError(f"{index}: names missing shards: {', '.join(sorted(absent))}")
    return sorted(shards.values())


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError) as error:
        raise unreadable(file, error) from None


def load_torch(file: Path) -> Any:
    """Read a file of torch.save: tensors in plain containers, memory-mapped if possible.

    Raises ConfigError if the file is missing, truncated, or holds anything but tensors.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give one that torch.save wrote") from None
    except pickle.UnpicklingError:
        fix = "save only tensors with torch.save, or copy it again"
        raise ConfigError(f"{file}: damaged, or holds other things than tensors; {fix}") from None
    except Exception as error:  # a damaged pickle also raises IndexError, KeyError, struct.error...
        raise unreadable(file, error) from None


def _read_torch(file: Path) -> dict[str, Tensor]:
    content = load_torch(file)
    for wrapper in WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    if not isinstance(content, dict):
        raise ConfigError(f"{file}: holds a {type(content).__name__}; expected a state_dict")
    if others := {str(key) for key, value in content.items() if not isinstance(value, Tensor)}:
        fix = "save only the state_dict"
        raise ConfigError(f"{file}: not a tensor in {listed(others)}; {fix}")
    return {str(key): value for key, value in content.items()}


def _is_zip(file: Path) -> bool:
    """Whether torch 1.6 or later wrote the file. Only then can it be memory-mapped."""
    with file.open("rb") as content:
        return content.read(2) == b"PK"


def unreadable(file: Path, error: Exception) -> ConfigError:
    """Build the error for a damaged checkpoint."""
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(f"{file}: cut off, or not a checkpoint ({reason}); copy it again")
