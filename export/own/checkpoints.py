"""Reads the checkpoints of this project's own policies: weights and known instructions.

A checkpoint is `torch.save({"policy": state_dict, "instructions": {text: tensor}}, path)`. Each
instruction is an embedding, float32 [language.tokens, language.dim].
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from export.own.config import LanguageConfig, PolicyConfig
from export.own.policy import Video2ActPolicy
from export.pipeline.state_dict import without_prefix
from v2a.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A policy with trained weights in evaluation mode, and its instructions' embeddings."""

    policy: Video2ActPolicy
    instructions: dict[str, Tensor]
    sha256: str


def load_checkpoint(path: Path, config: PolicyConfig) -> Checkpoint:
    """Read the weights at `path` into the policy that `config` describes.

    Raises ConfigError, with one line per fault, if the file is no such checkpoint or its tensors do
    not fit the policy. No code in the file is executed (`weights_only`).
    """
    state, instructions = _read(path)
    policy = Video2ActPolicy(config)
    expected = policy.state_dict()
    faults = [*_key_faults(expected, state), *_instruction_faults(instructions, config.language)]
    if faults:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    policy.load_state_dict(state)
    return Checkpoint(
        policy.eval().requires_grad_(False),
        instructions,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file; give a checkpoint of training") from None
    except Exception:  # a damaged pickle also raises IndexError, KeyError, struct.error...
        # Not the error's text, which advises to load the file without `weights_only`.
        fix = "give one that torch.save wrote, or copy it again"
        raise ConfigError(f"{path}: not a checkpoint of tensors only; {fix}") from None
    if not isinstance(content, dict) or set(content) != {"policy", "instructions"}:
        found = sorted(map(str, content)) if isinstance(content, dict) else type(content).__name__
        raise ConfigError(
            f"{path}: expected the keys 'policy' and 'instructions', found {found}; "
            "save both with torch.save"
        )
    return dict(without_prefix(content["policy"])), content["instructions"]


def _key_faults(expected: dict[str, Tensor], found: dict[str, Tensor]) -> Iterator[str]:
    fix = "train and export with the same policy file"
    if missing := sorted(expected.keys() - found.keys()):
        yield f"weights missing: {', '.join(missing)}; {fix}"
    if unexpected := sorted(found.keys() - expected.keys()):
        yield f"weights unexpected: {', '.join(unexpected)}; {fix}"
    for key in sorted(expected.keys() & found.keys()):
        if expected[key].shape != found[key].shape:
            yield (
                f"{key} is {list(found[key].shape)}, but the policy file gives "
                f"{list(expected[key].shape)}; {fix}"
            )


def _instruction_faults(instructions: dict[str, Tensor], language: LanguageConfig) -> Iterator[str]:
    shape = (language.tokens, language.dim)
    if not instructions:
        yield "has no instruction; save at least one embedding under 'instructions'"
    for text, tokens in instructions.items():
        if tuple(tokens.shape) != shape or tokens.dtype != torch.float32:
            yield (
                f"instruction {text!r} is {tokens.dtype} {list(tokens.shape)}, expected "
                f"torch.float32 {list(shape)} by 'language' in the policy file"
            )
