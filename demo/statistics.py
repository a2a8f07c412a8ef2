"""Computes success rates with confidence intervals; `RESULTS` holds the measured ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Final, TypedDict

RESULTS: Final = Path(__file__).with_name("results")  # measurements of the shipped policy


class Rate(TypedDict):
    """A success rate (0 to 1) and its Wilson 95 % interval."""

    success_rate: float
    n: int
    ci95: tuple[float, float]


def wilson(successes: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Return Wilson's score interval of a proportion (E. B. Wilson, JASA 22, 1927)."""
    if n == 0:
        return 0.0, 1.0
    share = successes / n
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    middle = share + z * z / (2 * n)
    scale = 1 + z * z / n
    return max(0.0, (middle - spread) / scale), min(1.0, (middle + spread) / scale)


def rate(successes: Sequence[bool]) -> Rate:
    """Return the success rate of some episodes."""
    n, won = len(successes), sum(successes)
    return Rate(success_rate=won / n if n else math.nan, n=n, ci95=wilson(won, n))
