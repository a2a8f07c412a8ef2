"""A profile for people at a terminal: a table and a few sentences."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from runtime.profile.compare import OTHERS_CORES
from v2a.spans import COLUMNS

_HEADS = ("n", "mean", "p50", "p90", "p99", "p99.9", "max", "share", "budget", "misses")


def as_text(profile: dict[str, Any]) -> str:
    return "\n".join(_lines(profile))


def _lines(profile: dict[str, Any]) -> Iterator[str]:
    yield f"{'ms':<16}" + "".join(f"{head:>9}" for head in _HEADS)
    for name, row in (profile["stages"] | profile["ages"]).items():
        if row["n"]:
            yield f"{name:<16}{row['n']:>9}" + "".join(f"{_cell(row, c):>9}" for c in _CELLS)
    engines = {name: row for name, row in profile["engines"].items() if row["alone"]}
    if engines:
        yield ""
        yield f"{'engine, p50 ms':<16}{'alone':>9}{'in run':>9}{'around':>9}{'A/A':>9}  95 %"
    for name, row in engines.items():
        floor = profile["noise_floor"][name]
        low, high = floor["ci95"]
        yield (
            f"{name:<16}{row['alone']['p50_ms']:>9.3f}{row['under_load']['p50_ms']:>9.3f}"
            f"{row['overhead_ms']:>9.3f}{floor['ratio']:>9.3f}  {low:.3f} to {high:.3f}"
        )
    yield ""
    for graph in ("denoise", "observe", "vdm_motion"):
        if layers := profile["layers"].get(graph):
            named = ", ".join(f"{row['module']} {row['share']:.0%}" for row in layers[:4])
            yield f"{graph}: {named}"
    missed = ", ".join(f"{cause} {n}" for cause, n in profile["missed_ticks"].items())
    yield f"{profile['seconds']:.1f} s, {profile['ticks']} ticks; missed: {missed or 'not counted'}"
    if throttled := (profile["device"] or {}).get("throttled"):
        yield f"the board was slowed down {len(throttled)} times, first at {throttled[0]}"
    if (others_cores := profile["others_cores"] or 0) > OTHERS_CORES:
        yield f"other programs used {others_cores:g} cores: the figures hold beside them"
    yield f"longest stall: {profile['tail']['verdict']}"
    yield profile["budgets"]["verdict"]


_CELLS = (*COLUMNS[1:], "share", "budget_ms", "misses")


def _cell(row: dict[str, Any], column: str) -> str:
    value = row.get(column)
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if column == "share":
        return f"{value:.0%}"
    return str(value) if isinstance(value, int) else f"{value:.3f}"
