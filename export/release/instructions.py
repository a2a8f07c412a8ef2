"""Embedded instructions as the release writes them: T5 for the policy, UMT5 for the video model.

Both are files of `torch.save`, whatever their ending. Nothing in them is executed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from export.release.config import LANGUAGE_TOKENS, WAN_TEXT_TOKENS, ReleaseConfig
from export.release.tensors import Texts
from export.release.weight_files import load_torch
from v2a.config import Strict
from v2a.errors import ConfigError

T5_KEY = "embeddings"
"""Of `set_language_instruction` in the release's `model.py`; the file may hold the tensor alone."""

UMT5_KEY = "llama_vec"
"""Of `scripts/precompute_wan_text_embeddings.py`, whose files end in .pkl."""


class Instruction(Strict):
    """Files of one instruction, from the policy file's folder."""

    lang: Path
    video: Path


@dataclass(frozen=True, slots=True)
class Embedded:
    """Embeddings by instruction, float32 [tokens, width], all of a kind equally long."""

    lang: Mapping[str, Tensor]
    video: Mapping[str, Tensor]
    lengths: Texts


def read_instructions(
    config: ReleaseConfig, files: Mapping[str, Instruction], folder: Path
) -> Embedded:
    """The embeddings in `files`. Those of the policy are padded with zeros to the longest, which
    the graph `instruction` leaves unread.

    Raises ConfigError when a file is missing or is no such embedding.
    """
    if not files:
        return Embedded({}, {}, Texts(min(LANGUAGE_TOKENS, config.max_lang_len), WAN_TEXT_TOKENS))
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
            f"an instruction has {longest} tokens, max_lang_len is {config.max_lang_len}"
        )
    lengths = {len(tokens) for tokens in video.values()}
    if len(lengths) > 1:
        raise ConfigError(
            f"the video model's texts have {sorted(lengths)} tokens; embed all with one padding"
        )
    padded = {t: functional.pad(x, (0, 0, 0, longest - len(x))) for t, x in lang.items()}
    return Embedded(padded, video, Texts(longest, lengths.pop()))


def _read(path: Path, key: str, width: int) -> Tensor:
    """[tokens, width] from a file that holds the tensor, or a mapping with it under `key`."""
    content = load_torch(path)
    tokens = content.get(key) if isinstance(content, dict) else content
    if not isinstance(tokens, Tensor):
        raise ConfigError(f"{path}: holds no tensor, alone or under {key!r}; embed the text again")
    one = tokens[0] if tokens.dim() == 3 and len(tokens) == 1 else tokens  # a batch of one
    if one.dim() != 2 or not len(one) or one.shape[1] != width or not one.isfinite().all():
        raise ConfigError(
            f"{path}: {list(tokens.shape)}, expected finite [tokens, {width}] by the policy file; "
            "embed the text with the text encoder that the policy was trained with"
        )
    return one.float()
