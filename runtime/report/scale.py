"""Places values along an axis: 0 is its left end, 1 its right end."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.report.formatting import known
from runtime.report.markup import Markup, tag


@dataclass(frozen=True, slots=True)
class LogAxis:
    """A logarithmic axis from `low` to `high`."""

    low: float
    high: float

    def at(self, value: float) -> float:
        """The place of `value`, 0 to 1; a value outside is at the nearer end."""
        place = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        return min(place, 1.0)

    def decades(self) -> list[float]:
        """The powers of ten on the axis."""
        first, last = math.log10(self.low) - 1e-9, math.log10(self.high) + 1e-9
        return [10.0**power for power in range(math.ceil(first), math.floor(last) + 1)]

    def edges(self, n: int) -> npt.NDArray[np.float64]:
        """The edges of n equally wide bins, float64 [n + 1]."""
        return np.geomspace(self.low, self.high, n + 1)


def log_axis(values: Iterable[object]) -> LogAxis:
    """An axis around all values above 0, at least a decade long; 1 to 10 without values."""
    found = [value for value in values if known(value) and value > 0] or [1.0]
    low, high = floor(min(found)), ceiling(max(found))
    return LogAxis(low, max(high, 10 * low))


def ceiling(value: float, steps: Sequence[float] = (1, 2, 5, 10)) -> float:
    """The smallest of `steps`, 1 to 10, times a power of ten that is not below `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-12))


def floor(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    return 1 / ceiling(1 / value)


def axis_labels(places: Iterable[tuple[float, str]]) -> Markup:
    """Labels under a plot, each at its place, 0 to 1."""
    return tag("div", *(label_at(place, text) for place, text in places), class_="axis")


def label_at(place: float, text: str, class_: str | None = None) -> Markup:
    """One label at its place, 0 to 1."""
    # The outermost labels stay inside: the one at 0 starts there, the one at 1 ends there.
    style = f"left:{100 * place:.3f}%;transform:translateX({-100 * place:.0f}%)"
    return tag("span", text, style=style, class_=class_)


def decade_labels(axis: LogAxis, unit: str) -> Markup:
    """A label at each power of ten."""
    return axis_labels((axis.at(value), f"{value:g} {unit}") for value in axis.decades())
