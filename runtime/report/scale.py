"""From a value to a place along an axis: 0 at its left end, 1 at its right end."""

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
    low: float
    high: float

    def at(self, value: float) -> float:
        """Where `value` is; what is outside lies on the nearer end."""
        place = math.log10(max(value, self.low) / self.low) / math.log10(self.high / self.low)
        return min(place, 1.0)

    def decades(self) -> list[float]:
        """The powers of ten on it."""
        first, last = math.log10(self.low) - 1e-9, math.log10(self.high) + 1e-9
        return [10.0**power for power in range(math.ceil(first), math.floor(last) + 1)]

    def edges(self, n: int) -> npt.NDArray[np.float64]:
        """The n + 1 edges of equally wide bins."""
        return np.geomspace(self.low, self.high, n + 1)


def log_axis(values: Iterable[object]) -> LogAxis:
    """Around all values that are above 0, at least a decade; 1 to 10 where there is none."""
    found = [value for value in values if known(value) and value > 0] or [1.0]
    low, high = floor(min(found)), ceiling(max(found))
    return LogAxis(low, max(high, 10 * low))


def ceiling(value: float, steps: Sequence[float] = (1, 2, 5, 10)) -> float:
    """The next of `steps`, which rise from 1 to 10, times a power of ten."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in steps if step * power >= value * (1 - 1e-12))


def floor(value: float) -> float:
    """The last 1, 2 or 5 times a power of ten."""
    return 1 / ceiling(1 / value)


def axis_labels(places: Iterable[tuple[float, str]]) -> Markup:
    """Labels under a plot, each at its place (0 to 1)."""
    return tag("div", *(label_at(place, text) for place, text in places), class_="axis")


def label_at(place: float, text: str, class_: str | None = None) -> Markup:
    # The outermost labels stay inside: 0 is aligned to its left, 1 to its right.
    style = f"left:{100 * place:.3f}%;transform:translateX({-100 * place:.0f}%)"
    return tag("span", text, style=style, class_=class_)


def decade_labels(axis: LogAxis, unit: str) -> Markup:
    return axis_labels((axis.at(value), f"{value:g} {unit}") for value in axis.decades())
