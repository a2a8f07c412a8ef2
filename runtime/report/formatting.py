"""Formats numbers for people. A missing value becomes a dash or words, never a zero."""

from __future__ import annotations

import math
from typing import Final, TypeGuard

MISSING: Final = "not measured"
DASH: Final = "–"  # a missing value in a table  # noqa: RUF001
QUANTILES: Final = {
    "mean_ms": "mean",
    "p50_ms": "p50",
    "p90_ms": "p90",
    "p99_ms": "p99",
    "p999_ms": "p99.9",
    "max_ms": "max",
}


def known(value: object) -> TypeGuard[float]:
    """Whether the value is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def number(value: object) -> str:
    """Three significant digits: 0.0123, 1.23, 12.3, 1234."""
    if not known(value):
        return DASH
    if isinstance(value, int) or value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"


def with_unit(value: object, unit: str) -> str:
    """Format a number with its unit, such as `12.3 ms`, or return `not measured`."""
    return f"{number(value)} {unit}" if known(value) else MISSING


def ms(value: object) -> str:
    """A time in milliseconds."""
    return with_unit(value, "ms")


def percent(share: object) -> str:
    """A share, 0 to 1, as a percentage."""
    return f"{number(100 * float(share))} %" if known(share) else DASH


def ratio(value: object) -> str:
    """A ratio with three decimals."""
    return f"{value:.3f}" if known(value) else DASH


def plural(n: int, word: str) -> str:
    """`1 stall`, `2 stalls`."""
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def phrase(name: str) -> str:
    """Write `frame_to_motor` as `frame to motor`."""
    return name.replace("_", " ")
