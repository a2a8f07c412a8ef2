"""Reading what the release and Wan2.2 write: one mapping of key to tensor, whatever the layout.

Tensors stay in the files, mapped into memory, until someone reads them: a checkpoint may be larger
than the memory that is free. Nothing in a file is executed.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from v2a.errors import ConfigError

Weights = Mapping[str, Tensor]

FILES_OF_A_FOLDER = (
    "pytorch_model.bin",  # the end of training; also in the folder `ema/` of a checkpoint
    "pytorch_model/mp_rank_00_model_states.pt",  # a checkpoint under DeepSpeed
    "*.index.json",  # which shard holds which tensor
    "*.safetensors",
)
"""What a folder may hold; the first that is there counts."""

WRAPPERS = ("module", "state_dict", "model_state", "policy")
"""Keys under which DeepSpeed, Lightning, Wan's VAE and this project's training put the tensors."""

_SHOWN_KEYS = 10


def read_weights(path: Path) -> Weights:
    """The tensors at `path`: a file, or a folder as in `FILES_OF_A_FOLDER`.

    Raises ConfigError when nothing is there, a file is cut off, or it holds other things.
    """
    merged: dict[str, Tensor] = {}
    for file in files_of(path):
        weights = _read_safetensors(file) if file.suffix == ".safetensors" else _read_torch(file)
        if double := merged.keys() & weights.keys():
            raise ConfigError(f"{file}: {listed(double)} also in another shard; keep one of them")
        merged.update(weights)
    return merged


def listed(keys: set[str]) -> str:
    """`3 keys: a, b, c`: the first ten and the count."""
    first = ", ".join(sorted(keys)[:_SHOWN_KEYS])
    more = ", ..." if len(keys) > _SHOWN_KEYS else ""
    return f"{len(keys)} key{'s' if len(keys) > 1 else ''}: {first}{more}"


def files_of(path: Path) -> list[Path]:
    """The files that a checkpoint at `path` lies in; ConfigError where there is none."""
    if not path.exists():
        raise ConfigError(f"{path}: no such file or folder; give a checkpoint")
    if path.name.endswith(".index.json"):
        return _shards(path)
    if path.is_file():
        return [path]
    for pattern in FILES_OF_A_FOLDER:
        if found := sorted(path.glob(pattern)):
            return _shards(found[0]) if pattern == "*.index.json" else found
    raise ConfigError(f"{path}: holds no checkpoint; expected {', '.join(FILES_OF_A_FOLDER)}")


def _shards(index: Path) -> list[Path]:
    try:
        shard_of = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        shards = {str(name): index.parent / str(name) for name in shard_of.values()}
    except (ValueError, KeyError, AttributeError, TypeError):
        fix = "copy it again"
        raise ConfigError(f"{index}: not an index of shards ('weight_map'); {fix}") from None
    if absent := {name for name, file in shards.items() if not file.is_file()}:
        raise ConfigError(f"{index}: names shards that are not there: {', '.join(sorted(absent))}")
    return sorted(shards.values())


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        with safe_open(file, framework="pt") as content:
            return {key: content.get_tensor(key) for key in content.keys()}  # noqa: SIM118  no dict
    except (SafetensorError, OSError) as error:
        raise unreadable(file, error) from None


def load_torch(file: Path) -> Any:
    """What torch.save wrote: tensors in plain containers, mapped where the format allows.

    Raises ConfigError when the file is not there, is cut off, or holds other things.
    """
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=_is_zip(file))
    except FileNotFoundError:
        raise ConfigError(f"{file}: no such file; give one that torch.save wrote") from None
    except pickle.UnpicklingError:
        fix = "save the tensors alone, with torch.save, or copy it again"
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
        fix = "save the state_dict alone"
        raise ConfigError(f"{file}: not a tensor in {listed(others)}; {fix}")
    return {str(key): value for key, value in content.items()}


def _is_zip(file: Path) -> bool:
    """Whether torch 1.6 or later wrote the file: only then can it be mapped."""
    with file.open("rb") as content:
        return content.read(2) == b"PK"


def unreadable(file: Path, error: Exception) -> ConfigError:
    reason = (str(error).splitlines() or [type(error).__name__])[0]
    return ConfigError(f"{file}: cut off, or not a checkpoint ({reason}); copy it again")
