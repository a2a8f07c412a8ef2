"""Prints a profile on a terminal: a table and a few sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator

from runtime.profile.compare import OTHERS_CORES
from runtime.profile_model import BudgetedTimes, EngineTimes, Profile, Ratio
from runtime.summary import missed_text
from v2a.measured import Times
from v2a.spans import COLUMNS
from v2a.terminal import wide_enough

_HEADS = ("n", "p50", "p90", "p99", "p99.9", "max", "share", "budget", "miss")
_CELLS = (*(name for name in COLUMNS if name != "mean_ms"), "share", "budget_ms", "misses")
_FEW = "~ too few samples for this quantile: it is about the longest"
_NARROW = {"n": 7, "share": 6, "budget": 7, "miss": 6}
_MOST_GRAPHS = 3


def profile_as_text(profile: Profile) -> str:
    """The table of stages and ages, the engines, the most expensive layers, and the verdicts.

    The layers are those of the `_MOST_GRAPHS` graphs whose layers take longest.
    """
    blocks = (_stages(profile), _engines(profile), _layers(profile), _sentences(profile))
    return "\n".join(line for block in blocks for line in block)


def _stages(profile: Profile) -> Iterator[str]:
    rows: dict[str, BudgetedTimes] = {**profile.stages, **profile.ages}
    first = max(14, *map(len, rows))  # the next column is right-aligned, and has room
    yield f"{'ms':<{first}}" + "".join(f"{head:>{_width(head)}}" for head in _HEADS)
    for name, row in rows.items():
        if row.n:
            cells = zip(_HEADS, _CELLS, strict=True)
            yield f"{name:<{first}}" + "".join(f"{_cell(row, c):>{_width(h)}}" for h, c in cells)
    if any(row.few for row in rows.values()):
        yield _FEW


def _width(head: str) -> int:
    """Column width; the table fits 80 columns."""
    return _NARROW.get(head, 8)


def _engines(profile: Profile) -> Iterator[str]:
    heads = ("alone", "in run", "around", "A/A")
    measured = {name: row for name, row in profile.engines.items() if row.alone is not None}
    first = wide_enough(measured, 16)
    if measured:
        yield ""
        yield f"{'engine, p50 ms':<{first}}" + "".join(f"{head:>9}" for head in heads) + "  95 %"
    for name, row in measured.items():
        assert row.alone is not None
        yield f"{name:<{first}}" + _engine(row, row.alone, profile.noise_floor[name])
    yield ""


def _engine(row: EngineTimes, alone: Times, floor: Ratio) -> str:
    cells = (alone.p50_ms, row.under_load.p50_ms, row.overhead_ms, floor.ratio)
    low, high = floor.ci95
    return "".join(f"{cell:>9.3f}" for cell in cells) + f"  {low:.3f} to {high:.3f}"


def _layers(profile: Profile) -> Iterator[str]:
    measured = [graph for graph, layers in profile.layers.items() if layers]
    measured.sort(key=lambda graph: -sum(row.ms for row in profile.layers[graph]))
    for graph in measured[:_MOST_GRAPHS]:
        layers = profile.layers[graph]
        named = ", ".join(f"{row.module} {row.share:.0%}" for row in layers[:4])
        yield f"{graph}: {named}"


def _sentences(profile: Profile) -> Iterator[str]:
    if profile.damaged:
        yield f"incomplete: {profile.damaged}"
    missed = missed_text(profile.missed_ticks)
    yield f"{profile.seconds:.1f} s, {profile.ticks} ticks; missed: {missed or 'not counted'}"
    if profile.device is not None and profile.device.throttled:
        times = profile.device.throttled
        yield f"the board slowed down {len(times)} times, first at {times[0]}"
    if (others_cores := profile.others_cores or 0) > OTHERS_CORES:
        yield f"other programs used {others_cores:g} cores; the numbers include their effect"
    yield f"longest stall: {profile.tail.verdict}"
    yield profile.budgets.verdict


def _cell(row: BudgetedTimes, column: str) -> str:
    value = getattr(row, column, None)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if column == "share":
        return f"{value:.0%}"
    if isinstance(value, int):
        return str(value)
    if column == "budget_ms":
        return f"{value:g}"
    text = f"{value:.3f}" if value < 100 else f"{value:.1f}"
    return f"~{text}" if column in row.few else text
