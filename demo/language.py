"""The demo's instruction embedding: fixed random vectors a word. A real policy stores its text
encoder's output.
"""

from __future__ import annotations

import zlib
from typing import Final

import numpy as np
import numpy.typing as npt

INSTRUCTION: Final = "drop the ring over the puck"


def embed(text: str, tokens: int, dim: int) -> npt.NDArray[np.float32]:
    """Tokens [1, tokens, dim] of `text`, one a word; missing words are zero, surplus words are
    dropped.
    """
    out = np.zeros((1, tokens, dim), dtype=np.float32)
    for i, word in enumerate(text.lower().split()[:tokens]):
        out[0, i] = np.random.default_rng(zlib.crc32(word.encode())).standard_normal(dim)
    return out
