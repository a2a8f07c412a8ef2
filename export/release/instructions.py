"""Reads the release's instruction embeddings: T5 for the policy, UMT5 for the video model.

Both are files of `torch.save` with any suffix. No code in them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from export.release.config import LANGUAGE_TOKENS, WAN_TEXT_TOKENS, ReleaseConfig
from export.release.policy_file import Instruction
from export.release.tensors import TextLengths
from export.release.weight_files import load_torch
from v2a.errors import ConfigError

T5_KEY = "embeddings"
"""From `set_language_instruction` in the release's `model.py`. A file may also hold only the
tensor."""

UMT5_KEY = "llama_vec"
"""From `scripts/precompute_wan_text_embeddings.py`, whose files end in .pkl."""


@dataclass(frozen=True, slots=True)
class Embedded:
    """Instruction -> embedding, float32 [tokens, width]. Each mapping has one length."""

    lang: Mapping[str, Tensor]
    video: Mapping[str, Tensor]
    lengths: TextLengths


def read_instructions(
    config: ReleaseConfig, files: Mapping[str, Instruction], folder: Path
) -> Embedded:
    """Read the embeddings in `files`.

    The policy's embeddings are padded with zeros to the longest; the graph `instruction` ignores
    the padding. Raises ConfigError if a file is missing or holds no such embedding.
    """
    if not files:
        return Embedded(
            {}, {}, TextLengths(min(LANGUAGE_TOKENS, config.max_lang_len), WAN_TEXT_TOKENS)
        )
    lang = {
        text: _read(folder / file.lang, T5_KEY, config.lang_token_dim)
        for text, file in files.items()
    }
    video = {
        text: _read(folder / file.video, UMT5_KEY, config.wan.text_dim)
        for text, file in files.items()
    }
    longest = max(len(tokens) for tokens in lang.values())
    if longest > config.max_lang_len:
        raise ConfigError(
            f"an instruction has {longest} tokens, but max_lang_len is {config.max_lang_len}; "
            "use a shorter instruction"
        )
    lengths = {len(tokens) for tokens in video.values()}
    if len(lengths) > 1:
        raise ConfigError(
            f"the video model's texts have {sorted(lengths)} tokens; pad all to one length"
        )
    padded = {t: functional.pad(x, (0, 0, 0, longest - len(x))) for t, x in lang.items()}
    return Embedded(padded, video, TextLengths(longest, lengths.pop()))


def _read(path: Path, key: str, width: int) -> Tensor:
    """Read [tokens, width] from a file with the tensor, or with a mapping that has it at `key`."""
    content = load_torch(path)
    tokens = content.get(key) if isinstance(content, dict) else content
    if not isinstance(tokens, Tensor):
        raise ConfigError(f"{path}: holds no tensor, alone or under {key!r}; embed the text again")
    one = tokens[0] if tokens.dim() == 3 and len(tokens) == 1 else tokens  # a batch of one
    if one.dim() != 2 or not len(one) or one.shape[1] != width or not one.isfinite().all():
        raise ConfigError(
            f"{path}: {list(tokens.shape)}, but the policy file gives finite [tokens, {width}]; "
            "embed the text with the text encoder that the policy was trained with"
        )
    return one.float()
