"""Numbers as an engineer reads them. What is missing is said, never shown as a zero."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final, TypeGuard

Profile = Mapping[str, Any]

MISSING: Final = "not measured"
DASH: Final = "–"  # the same in a cell of a table  # noqa: RUF001
QUANTILES: Final = {
    "mean_ms": "mean",
    "p50_ms": "p50",
    "p90_ms": "p90",
    "p99_ms": "p99",
    "p999_ms": "p99.9",
    "max_ms": "max",
}


def known(value: object) -> TypeGuard[float]:
    """Whether it is a finite number."""
    return isinstance(value, (int, float)) and math.isfinite(value)


def number(value: object) -> str:
    """Three digits that count: 0.0123, 1.23, 12.3, 1234."""
    if not known(value):
        return DASH
    if isinstance(value, int) or value == 0 or abs(value) >= 1000:
        return f"{value:.0f}"
    return f"{value:.{max(2 - math.floor(math.log10(abs(value))), 0)}f}"


def with_unit(value: object, unit: str) -> str:
    return f"{number(value)} {unit}" if known(value) else MISSING


def ms(value: object) -> str:
    return with_unit(value, "ms")


def percent(share: object) -> str:
    return f"{number(100 * float(share))} %" if known(share) else DASH


def ratio(value: object) -> str:
    return f"{value:.3f}" if known(value) else DASH


def plural(n: int, word: str) -> str:
    return f"{n} {word}" if n == 1 else f"{n} {word}s"


def phrase(name: str) -> str:
    """`frame_to_motor` as words."""
    return name.replace("_", " ")
