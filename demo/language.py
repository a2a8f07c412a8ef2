"""The demo's instruction embedding: one fixed random vector per word.

A real policy stores the output of its text encoder instead.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

INSTRUCTION: Final = "drop the ring over the puck"


def embed(text: str, tokens: int, dim: int) -> npt.NDArray[np.float32]:
    """Embed `text` as float32 [1, tokens, dim], one token per word.

    Unused tokens are zero and surplus words are dropped.
    """
    out = np.zeros((1, tokens, dim), dtype=np.float32)
    for i, word in enumerate(text.lower().split()[:tokens]):
        out[0, i] = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dim)
    return out
