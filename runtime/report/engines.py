"""Inside System 1 and System 2: each engine alone and beside the others, and its layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from runtime.report.formatting import Profile, known, ms, number, percent
from runtime.report.markup import Markup, canvas, section, table, tag, upright
from runtime.report.scale import LogAxis, decade_labels, log_axis

OPEN: Final = 2  # graphs that are unfolded at first
LAYERS_SHOWN: Final = 12
_SIDES: Final = ("alone", "under_load")


def engines(profile: Profile) -> Markup:
    rows = profile.get("engines") or {}
    if not any(row.get("alone") for row in rows.values()):
        nothing = "Not measured: only v2a profile BUNDLE runs the engines by themselves."
        return section("Engines alone and under load", nothing)
    sides = [side for row in rows.values() for side in _sides(row)]
    axis = log_axis(side.get(quantile) for side in sides for quantile in ("p50_ms", "p99_ms"))
    lead = (
        "Each graph by itself, and while everything runs: from p50 to p99, and by what factor the "
        "median grew. Overhead: our own time around the engine."
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
    graphs = {name: rows for name, rows in (profile.get("layers") or {}).items() if rows}
    if not graphs:
        return section("Layers of each graph", "Not measured: no engine told its layers' times.")
    dearest = sorted(graphs, key=lambda name: -_total(graphs[name], "ms"))
    cards = (_graph(name, graphs[name], name in dearest[:OPEN]) for name in dearest)
    lead = "What each module of a graph costs; graphs and modules, the dearest first."
    return section("Layers of each graph", lead, tag("div", *cards, class_="cards"))


def _sides(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    return [row.get(side) or {} for side in _SIDES]


def _pair(graph: str, row: Mapping[str, Any], axis: LogAxis) -> Markup:
    shapes = [upright(1000 * axis.at(v), 0, 24, "grid") for v in axis.decades()]
    for k, (side, found) in enumerate(zip(_SIDES, _sides(row), strict=True)):
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


def slower_by(row: Mapping[str, Any]) -> float | None:
    """Median under load over median alone."""
    alone, load = (side.get("p50_ms") for side in _sides(row))
    return load / alone if known(alone) and known(load) and alone > 0 else None


def _span(found: Mapping[str, Any], axis: LogAxis, y: float, side: str) -> list[Markup]:
    p50, p99 = found.get("p50_ms"), found.get("p99_ms")
    if not known(p50):
        return []
    left = 1000 * axis.at(p50)
    right = 1000 * axis.at(p99) if known(p99) else left
    return [
        tag("rect", x=left, y=y, width=max(right - left, 2), height=7, class_=side),
        upright(left, y - 1, y + 8, "p50"),
    ]


def _cells(row: Mapping[str, Any]) -> list[str]:
    found = [number(side.get(q)) for side in _sides(row) for q in ("p50_ms", "p99_ms")]
    ratio = slower_by(row)
    return [*found, f"{number(ratio)} x" if ratio else number(None), number(row.get("overhead_ms"))]


def _graph(graph: str, rows: list[Mapping[str, Any]], opened: bool) -> Markup:
    rows = sorted(rows, key=lambda row: -_total([row], "share"))
    shown, rest = rows[:LAYERS_SHOWN], rows[LAYERS_SHOWN:]
    first = tag("small", f" {shown[0].get('module')} {percent(shown[0].get('share'))}")
    summary = tag("summary", tag("b", graph), f" {ms(_total(rows, 'ms'))}", first)
    more = f"{len(rest)} more, {percent(_total(rest, 'share'))}"
    parts = [
        *(_layer(row, shown[0]) for row in shown),
        *([tag("p", more, class_="note")] if rest else []),
    ]
    return tag("details", summary, *parts, open="open" if opened else None)


def _total(rows: Sequence[Mapping[str, Any]], what: str) -> float:
    """Of what is known."""
    return float(sum(row[what] for row in rows if known(row.get(what))))


def _layer(row: Mapping[str, Any], dearest: Mapping[str, Any]) -> Markup:
    width = 100 * _total([row], "share") / (_total([dearest], "share") or 1.0)
    bar = tag("rect", x=0, y=1, width=width, height=8)
    return tag(
        "div",
        tag("b", str(row.get("module"))),
        canvas(100, 10, bar, aria_hidden="true"),
        tag("span", f"{percent(row.get('share'))}, {ms(row.get('ms'))}"),
        class_="layer",
    )


def _legend() -> Markup:
    items = (("alone", "alone"), ("under_load", "under load"))
    return tag("p", *(tag("span", tag("i", class_=k), f" {t}") for k, t in items), class_="legend")
