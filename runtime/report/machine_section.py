"""The lower part of the page: ticks, threads, noise floor, device, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtime.report.formatting import QUANTILES, Profile, known, number, phrase, ratio
from runtime.report.markup import Markup, canvas, joined, section, table, tag

_CAUSES: Final = {
    "late": "the loop woke up late or worked too long",
    "bus": "the serial bus took more than a period",
    "no_chunk": "the loop ran, but had no chunk to follow",
}

_UNITS: Final = {"ms": "ms", "s": "s", "mib": "MiB", "gib": "GiB", "mhz": "MHz", "hz": "Hz"} | {
    "w": "W",
    "mw": "mW",
    "c": "°C",
}


def missed_ticks(profile: Profile) -> Markup:
    causes, ticks = profile.get("missed_ticks"), profile.get("ticks")
    title = "Missed ticks by cause"
    if not causes or not ticks:
        return section(title, "Not measured: no control loop ran, or the run was killed.")
    total = sum(n for n in causes.values() if known(n))
    if not total:
        return section(title, f"None, in {number(ticks)} ticks.")
    most = max(n for n in causes.values() if known(n))
    rows = (_cause(cause, n, most) for cause, n in causes.items())
    return section(title, f"{number(total)} missed, in {number(ticks)} ticks.", *rows)


def machine(profile: Profile) -> Markup:
    rate = "A/A: the same engine against itself, before anything else. What lies within is noise."
    parts = [
        tag("h3", "Noise floor"),
        _noise(profile.get("noise_floor") or {}, rate),
        tag("h3", "Threads"),
        _by_name("thread", profile.get("threads") or {}),
        tag("h3", "Memory"),
        _by_name("process", profile.get("memory") or {}),
        tag("h3", "Power, clocks, temperature"),
        _device(profile.get("device")),
        tag("h3", "Machine"),
        _pairs(profile.get("machine") or {}, "Not recorded."),
    ]
    return section("The machine", "What these numbers hold for.", *parts)


def _cause(cause: str, n: object, most: float) -> Markup:
    width = 100 * n / most if known(n) else 0.0
    return tag(
        "div",
        tag("b", phrase(cause), tag("small", f" {_CAUSES.get(cause, '')}")),
        canvas(100, 10, tag("rect", x=0, y=1, width=width, height=8), aria_hidden="true"),
        tag("span", number(n)),
        class_="layer cause",
    )


def _noise(rows: Mapping[str, Mapping[str, Any]], lead: str) -> Markup:
    if not rows:
        return tag("p", "Not measured: only v2a profile BUNDLE runs an engine against itself.")
    cells = (
        (graph, ratio(row.get("ratio")), *map(ratio, row.get("ci95") or (None, None)))
        for graph, row in rows.items()
    )
    head = ("graph", "ratio", "95 % from", "to")
    return joined([tag("p", lead), table(head, cells)])


def _by_name(what: str, rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    if not rows:
        return tag("p", "Not measured.")
    columns = list(dict.fromkeys(key for row in rows.values() for key, _ in _flat(row)))
    cells = ((name, *_row(row, columns)) for name, row in rows.items())
    return table((what, *map(_heading, columns)), cells)


def _device(board: Mapping[str, Any] | None) -> Markup:
    if not board:
        return tag("p", "Not read: this is not a Jetson.")
    slowed = board.get("throttled") or ()
    says = "The board slowed itself down:" if slowed else "The board never slowed itself down."
    cells = (
        (what, _unit(quantity), _said(found.get("mean")), _said(found.get("max")))
        for quantity, seen in board.items()
        if isinstance(seen, Mapping)
        for what, found in seen.items()
    )
    return joined(
        [
            tag("p", f"Power mode {board.get('power_mode') or 'not known'}."),
            tag("p", says, class_="says bad" if slowed else None),
            tag("ul", *(tag("li", str(moment)) for moment in slowed)),
            table(("", "of", "mean", "max"), cells),
        ]
    )


def _row(row: Mapping[str, Any], columns: list[str]) -> Iterator[str]:
    found = dict(_flat(row))
    return (_said(found.get(column)) for column in columns)


def _flat(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Every value, by its dotted path; of quantiles the three that are looked at."""
    quantiles = "p50_ms" in row
    for key, value in row.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif not quantiles or key in ("p50_ms", "p99_ms", "max_ms"):
            yield f"{above}{key}", value


def _heading(path: str) -> str:
    *above, last = path.split(".")
    ms = f"{QUANTILES[last]}, ms" if last in QUANTILES else _unit(last)
    return " ".join([*map(_unit, above), ms])


def _unit(name: str) -> str:
    """`cpu_s` as `cpu, s`."""
    stem, _, unit = name.rpartition("_")
    return f"{phrase(stem)}, {_UNITS[unit]}" if stem and unit in _UNITS else phrase(name)


def _pairs(facts: Mapping[str, Any], missing: str) -> Markup:
    if not facts:
        return tag("p", missing)
    pairs = (
        tag("div", tag("dt", _heading(path)), tag("dd", _said(value)))
        for path, value in _flat(facts)
    )
    return tag("dl", *pairs, class_="pairs")


def _said(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or isinstance(value, (int, float)):
        return number(value)
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_said, value)) or "none"
    return str(value)
