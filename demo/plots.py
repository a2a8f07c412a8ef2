"""Draws the report's plots. Every function returns PNG bytes."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib

matplotlib.use("Agg")  # before pyplot is imported, as there may be no display
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

_QUANTILES: Final = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
_DARK, _MARK = "#30475e", "#d9822b"
_NOT_TERMS: Final = ("stage", "step", "monotonic_s", "held_out")
EVERY: Final = {"every_1": 1, "every_2": 2, "every_4": 4, "every_8": 8, "every_16": 16}


def latency(stages: Mapping[str, Mapping[str, float]]) -> bytes:
    """Plot each stage from its median to its p99.9 on a logarithmic scale."""
    shown = [(name, row) for name, row in stages.items() if row["n"]]
    figure, axes = plt.subplots(figsize=(7, 0.32 * len(shown) + 1))
    for y, (_, row) in enumerate(shown):
        axes.plot([row["p50_ms"], row["p999_ms"]], [y, y], color=_DARK, lw=5, solid_capstyle="butt")
        axes.plot(row["p50_ms"], y, "o", color=_MARK, ms=6)
        axes.plot(row["max_ms"], y, "|", color=_DARK, ms=9)
    axes.set_yticks(range(len(shown)), [name for name, _ in shown])
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlabel("milliseconds: median (dot) to p99.9 (bar), maximum (tick)")
    axes.grid(axis="x", alpha=0.3)
    return _png(figure)


def ages(rows: Mapping[str, Mapping[str, float]]) -> bytes:
    """Plot the quantiles of each age."""
    figure, axes = plt.subplots(figsize=(7, 2.6))
    for name, row in rows.items():
        axes.plot(range(len(_QUANTILES)), [row[q] for q in _QUANTILES], "o-", label=name)
    axes.set_xticks(range(len(_QUANTILES)), ["p50", "p90", "p99", "p99.9", "max"])
    axes.set_ylabel("ms")
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def success_by_rate(studies: Mapping[str, Mapping[str, Any]], period_s: float) -> bytes:
    """Plot success against System 2's period: one line per level, with 95 % intervals."""
    figure, axes = plt.subplots(figsize=(7, 3.2))
    for level, modes in studies.items():
        xs = [every for mode, every in EVERY.items() if mode in modes]
        rows = [modes[mode] for mode in EVERY if mode in modes]
        _interval_line(axes, xs, rows, level)
    axes.set_xscale("log", base=2)
    ticks = list(EVERY.values())
    axes.set_xticks(ticks, [f"{k}\n{k * period_s:.1f} s" for k in ticks])
    axes.set_xlabel("System 2 is refreshed every ... System 1 calls")
    axes.set_ylabel("success, %")
    axes.set_ylim(0, 102)
    axes.grid(alpha=0.3)
    axes.legend()
    return _png(figure)


def modes_bar(studies: Mapping[str, Mapping[str, Any]]) -> bytes:
    """Plot the success of every mode of the study with 95 % intervals."""
    names = list(dict.fromkeys(mode for modes in studies.values() for mode in modes))
    figure, axes = plt.subplots(figsize=(7, 0.42 * len(names) + 1))
    width = 0.8 / len(studies)
    for k, (level, modes) in enumerate(studies.items()):
        rows = [modes[name] for name in names]
        middle = np.array([100 * row["success_rate"] for row in rows])
        y = np.arange(len(names)) + (k - (len(studies) - 1) / 2) * width
        axes.barh(y, middle, width, label=level, color=(_DARK, _MARK)[k % 2])
        axes.errorbar(middle, y, xerr=_spread(rows, middle), fmt="none", color="black", lw=1)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(0, 102)
    axes.set_xlabel("success, %")
    axes.legend()
    return _png(figure)


def curves(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """Plot the training losses: one panel per stage and one line per term.

    Dotted lines are for held-out episodes.
    """
    stages = list(dict.fromkeys(row["stage"] for row in rows))
    figure, panels = plt.subplots(1, len(stages), figsize=(4 * len(stages), 3.4), squeeze=False)
    for axes, stage in zip(panels[0], stages, strict=True):
        logged = [row for row in rows if row["stage"] == stage]
        held_out = [row["held_out"] | {"step": row["step"]} for row in logged if "held_out" in row]
        for term in dict.fromkeys(key for row in logged for key in row if key not in _NOT_TERMS):
            (line,) = axes.plot(*_points(logged, term), label=term, lw=1)
            axes.plot(*_points(held_out, term), color=line.get_color(), ls=":", lw=1)
        axes.set_title(stage)
        axes.set_yscale("log")
        axes.set_xlabel("step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=7)
    return _png(figure)


def _points(rows: Sequence[Mapping[str, Any]], term: str) -> tuple[list[int], list[float]]:
    points = [(row["step"], row[term]) for row in rows if row.get(term, 0) > 0]
    return [step for step, _ in points], [value for _, value in points]


def _interval_line(
    axes: Any, xs: Sequence[float], rows: Sequence[Mapping[str, Any]], label: str
) -> None:
    middle = np.array([100 * row["success_rate"] for row in rows])
    axes.errorbar(xs, middle, yerr=_spread(rows, middle), fmt="o-", capsize=3, label=label)


def _spread(
    rows: Sequence[Mapping[str, Any]], middle: np.ndarray[Any, np.dtype[np.float64]]
) -> Any:
    low, high = 100 * np.array([row["ci95"] for row in rows]).T
    return np.clip([middle - low, high - middle], 0, None)


def _png(figure: Figure) -> bytes:
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=140, bbox_inches="tight")
    plt.close(figure)
    return out.getvalue()
