"""Draws how long each stage took: distributions on one logarithmic axis, and a table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import numpy as np

from runtime.profile_model import Histogram, Profile, StageTimes
from runtime.report.formatting import DASH, QUANTILES, known, ms, number, percent
from runtime.report.looks import Look, looks_of
from runtime.report.markup import Markup, canvas, joined, path, section, table, tag, upright
from runtime.report.scale import LogAxis, decade_labels, log_axis
from v2a.measured import Times

BINS: Final = 150
WIDTH, HEIGHT = 1000, 38
BASE, LOWER, LOW = 27, 29, 36  # bottom of the histogram; top and bottom of the quantiles

_LEAD: Final = (
    "All stages on one logarithmic axis, by thread. Heights are square roots of counts, so rare "
    "slow ones stay visible."
)
_LEGEND: Final = (
    ("p50", "p50: half were faster"),
    ("p99", "to p99: 99 of 100 were"),
    ("max", "to the maximum"),
    ("limit", "budget"),
)


def latency(profile: Profile, stages: Sequence[str]) -> Markup:
    """The section with the distribution of each stage. `stages` are those of the run, by index."""
    rows = {stage: row for stage, row in profile.stages.items() if row.n}
    if not rows:
        return section("Latency of each stage", "No stage ran: nothing was measured.")
    axis, looks = log_axis(_extent(rows)), looks_of(stages)
    by_thread: dict[str, list[str]] = {}
    for stage, row in rows.items():
        by_thread.setdefault(row.thread or "no thread", []).append(stage)
    groups = (
        joined(
            [
                tag("h3", thread, tag("small", _period(rows[names[0]]))),
                *(_row(stage, rows[stage], axis, looks[stage]) for stage in names),
            ]
        )
        for thread, names in by_thread.items()
    )
    scale = tag("div", tag("b"), decade_labels(axis, "ms"), class_="stage head")
    plot = tag("div", scale, *groups, class_="stages")
    numbers = stage_table(rows, profile.gpu)
    folded = tag("details", tag("summary", "All numbers"), numbers)
    return section("Latency of each stage", _LEAD, _legend(), plot, folded)


def stage_table(stages: Mapping[str, StageTimes], gpu: Mapping[str, Times]) -> Markup:
    """All numbers of the stages, and of the stages' work on the GPU."""
    head = ("ms", "n", *QUANTILES.values(), "share", "budget", "over it")
    body = [(name, *_quantile_cells(row), *_budget_cells(row)) for name, row in stages.items()]
    body += [(f"{name}, GPU", *_quantile_cells(row), DASH, DASH, DASH) for name, row in gpu.items()]
    note = f"share: mean divided by period. {DASH} not measured, or no budget."
    return joined([table(head, body), tag("p", note, class_="note")])


def density(histogram: Histogram, axis: LogAxis) -> list[float]:
    """The histogram on the axis' own BINS bins, as heights from 0 to 1; empty without counts.

    Each source bin is spread evenly over its logarithmic width.
    """
    counts = np.asarray(histogram.counts, dtype=np.float64)
    edges = np.asarray(histogram.edges_ms, dtype=np.float64)
    if counts.size == 0 or edges.size != counts.size + 1 or counts.sum() <= 0:
        return []
    below = np.concatenate([[0.0], np.cumsum(counts)])
    logs = np.log(np.maximum(edges, axis.low * 1e-3))
    heights = np.sqrt(np.diff(np.interp(np.log(axis.edges(BINS)), logs, below)))
    peak = heights.max()
    return [float(height / peak) for height in heights] if peak > 0 else []


def _quantile_cells(row: Times) -> list[str]:
    return [number(row.n), *(number(getattr(row, key)) for key in QUANTILES)]


def _budget_cells(row: StageTimes) -> tuple[str, str, str]:
    misses = number(row.misses) if known(row.budget_ms) else DASH
    return percent(row.share), number(row.budget_ms), misses


def _extent(rows: Mapping[str, StageTimes]) -> Iterator[object]:
    for row in rows.values():
        yield from (row.p50_ms, row.max_ms, row.budget_ms)
        filled = zip(row.histogram.edges_ms, row.histogram.counts, strict=False)
        yield next((edge for edge, count in filled if count), None)


def _row(stage: str, row: StageTimes, axis: LogAxis, look: Look) -> Markup:
    heights = density(row.histogram, axis)
    shapes = [upright(WIDTH * axis.at(v), 0, HEIGHT, "grid") for v in axis.decades()]
    if heights:
        shapes.append(_area(heights, look))
    shapes += _quantiles(row, axis)
    if known(row.budget_ms):
        shapes.append(upright(WIDTH * axis.at(row.budget_ms), 0, HEIGHT, "limit"))
    few = "~" if "p99_ms" in row.few else ""
    says = f"{stage}: p50 {ms(row.p50_ms)}, p99 {few}{ms(row.p99_ms)}"
    says += f" (only {row.n} samples: the longest)" if few else ""
    return tag(
        "div",
        tag("b", stage),
        canvas(WIDTH, HEIGHT, *shapes, role="img", aria_label=says),
        tag("span", tag("small", "p50 "), ms(row.p50_ms)),
        tag("span", tag("small", f"p99 {few}"), ms(row.p99_ms)),
        _misses(row),
        class_="stage",
    )


def _quantiles(row: Times, axis: LogAxis) -> list[Markup]:
    """A mark at p50, a bar from there to p99, and a line on to the maximum."""
    values = (row.p50_ms, row.p99_ms, row.max_ms)
    p50, p99, longest = (WIDTH * axis.at(v) if known(v) else math.nan for v in values)
    middle = (LOWER + LOW) / 2
    shapes = []
    if p99 <= longest:
        shapes.append(path([(p99, middle), (longest, middle)], class_="max"))
    if p50 <= p99:
        shapes.append(
            tag("rect", x=p50, y=LOWER, width=p99 - p50, height=LOW - LOWER, class_="p99")
        )
    if known(p50):
        shapes.append(upright(p50, LOWER - 2, LOW + 2, "p50"))
    return shapes


def _area(heights: list[float], look: Look) -> Markup:
    step = WIDTH / len(heights)
    points = [(0.0, float(BASE))]
    for k, height in enumerate(heights):
        y = BASE * (1 - height)
        points += [(k * step, y), ((k + 1) * step, y)]
    return path(
        [*points, (float(WIDTH), float(BASE))], class_=f"fill {look.class_}", style=look.style
    )


def _misses(row: StageTimes) -> Markup:
    if not known(row.budget_ms):
        return tag("span", "", class_="says")
    text = f"{number(row.misses)} of {number(row.n)} over {ms(row.budget_ms)}"
    return tag("span", text, class_=f"says {'bad' if row.misses else 'ok'}")


def _period(row: StageTimes) -> str:
    several = "," in row.thread
    return f" every {ms(row.period_ms)}" if known(row.period_ms) and not several else ""


def _legend() -> Markup:
    items = (tag("span", tag("i", class_=kind), f" {what}") for kind, what in _LEGEND)
    return tag("p", *items, class_="legend")
