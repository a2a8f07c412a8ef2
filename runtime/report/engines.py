"""Draws each engine alone and during the run, and the layers of each graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from runtime.profile_model import EngineTimes, LayerShare, Profile
from runtime.report.formatting import known, ms, number, percent
from runtime.report.markup import Markup, canvas, section, table, tag, upright
from runtime.report.scale import LogAxis, decade_labels, log_axis
from v2a.measured import Times

OPEN: Final = 2  # number of graphs that are unfolded at first
LAYERS_SHOWN: Final = 12


def engines(profile: Profile) -> Markup:
    """The section that compares each engine alone with the same engine during the run."""
    rows = profile.engines
    if not any(row.alone for row in rows.values()):
        nothing = "Not measured: only v2a profile BUNDLE runs each engine alone."
        return section("Engines alone and under load", nothing)
    sides = [side for row in rows.values() for side in (row.alone, row.under_load) if side]
    axis = log_axis(value for side in sides for value in (side.p50_ms, side.p99_ms))
    lead = (
        "Each graph alone, and while everything runs: from p50 to p99, and the factor by which the "
        "median grew. Overhead: the time of our own code around the engine."
    )
    scale = tag("div", tag("b"), decade_labels(axis, "ms"), class_="engine head")
    plot = tag("div", scale, *(_pair(graph, row, axis) for graph, row in rows.items()))
    numbers = table(
        ("ms", "alone p50", "p99", "under load p50", "p99", "slower by", "overhead"),
        ((graph, *_cells(row)) for graph, row in rows.items()),
    )
    details = tag("details", tag("summary", "All numbers"), numbers)
    return section("Engines alone and under load", lead, _legend(), plot, details)


def layers(profile: Profile) -> Markup:
    """The section with the modules of each graph."""
    graphs = {name: rows for name, rows in profile.layers.items() if rows}
    if not graphs:
        return section("Layers of each graph", "Not measured: no engine timed its layers.")
    ranked = sorted(graphs, key=lambda name: -_total(row.ms for row in graphs[name]))
    cards = (_graph(name, graphs[name], name in ranked[:OPEN]) for name in ranked)
    lead = "The time of each module of a graph; the most expensive graphs and modules come first."
    return section("Layers of each graph", lead, tag("div", *cards, class_="cards"))


def _pair(graph: str, row: EngineTimes, axis: LogAxis) -> Markup:
    shapes = [upright(1000 * axis.at(v), 0, 24, "grid") for v in axis.decades()]
    for k, (side, found) in enumerate((("alone", row.alone), ("under_load", row.under_load))):
        shapes += _span(found, axis, 3 + 11 * k, side)
    ratio = slower_by(row)
    says = f"{number(ratio)} times" if known(ratio) else "no pair"
    return tag(
        "div",
        tag("b", graph),
        canvas(1000, 24, *shapes, aria_hidden="true"),
        tag("span", says, class_="says"),
        class_="engine",
    )


def slower_by(row: EngineTimes) -> float | None:
    """The median under load divided by the median alone; None if one is missing."""
    if row.alone is None:
        return None
    alone, load = row.alone.p50_ms, row.under_load.p50_ms
    return load / alone if known(alone) and known(load) and alone > 0 else None


def _span(found: Times | None, axis: LogAxis, y: float, side: str) -> list[Markup]:
    if found is None or not known(found.p50_ms):
        return []
    left = 1000 * axis.at(found.p50_ms)
    right = 1000 * axis.at(found.p99_ms) if known(found.p99_ms) else left
    return [
        tag("rect", x=left, y=y, width=max(right - left, 2), height=7, class_=side),
        upright(left, y - 1, y + 8, "p50"),
    ]


def _cells(row: EngineTimes) -> list[str]:
    alone = (row.alone.p50_ms, row.alone.p99_ms) if row.alone else (None, None)
    found = [number(value) for value in (*alone, row.under_load.p50_ms, row.under_load.p99_ms)]
    ratio = slower_by(row)
    return [*found, f"{number(ratio)} x" if ratio else number(None), number(row.overhead_ms)]


def _graph(graph: str, rows: Sequence[LayerShare], opened: bool) -> Markup:
    rows = sorted(rows, key=lambda row: -_total([row.share]))
    shown, rest = rows[:LAYERS_SHOWN], rows[LAYERS_SHOWN:]
    first = tag("small", f" {shown[0].module} {percent(shown[0].share)}")
    total = ms(_total(row.ms for row in rows))
    summary = tag("summary", tag("b", graph), f" {total}", first)
    more = f"{len(rest)} more, {percent(_total(row.share for row in rest))}"
    parts = [
        *(_layer(row, shown[0]) for row in shown),
        *([tag("p", more, class_="note")] if rest else []),
    ]
    return tag("details", summary, *parts, open="open" if opened else None)


def _total(values: Iterable[float]) -> float:
    """The sum of the values that are known."""
    return float(sum(value for value in values if known(value)))


def _layer(row: LayerShare, largest: LayerShare) -> Markup:
    width = 100 * _total([row.share]) / (_total([largest.share]) or 1.0)
    bar = tag("rect", x=0, y=1, width=width, height=8)
    return tag(
        "div",
        tag("b", row.module),
        canvas(100, 10, bar, aria_hidden="true"),
        tag("span", f"{percent(row.share)}, {ms(row.ms)}"),
        class_="layer",
    )


def _legend() -> Markup:
    items = (("alone", "alone"), ("under_load", "under load"))
    return tag("p", *(tag("span", tag("i", class_=k), f" {t}") for k, t in items), class_="legend")
