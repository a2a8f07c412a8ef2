"""Draws the lower part of the page: missed ticks, noise floor, threads, memory, machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from runtime.profile_model import Board, Profile, Ratio
from runtime.report.formatting import QUANTILES, number, phrase, ratio
from runtime.report.markup import Markup, canvas, joined, section, table, tag
from v2a.measured import Measured

_CAUSES: Final = {
    "late": "the loop woke up late or took too long",
    "bus": "the serial bus took longer than a period",
    "no_chunk": "the loop had no chunk to follow",
}

_UNITS: Final = {"ms": "ms", "s": "s", "mib": "MiB", "gib": "GiB", "mhz": "MHz", "hz": "Hz"} | {
    "w": "W",
    "mw": "mW",
    "c": "°C",
}


def missed_ticks(profile: Profile) -> Markup:
    """The section with the causes of missed control ticks."""
    causes, ticks = profile.missed_ticks, profile.ticks
    title = "Missed ticks by cause"
    if not causes or not ticks:
        return section(title, "Not measured: no control loop ran, or the run was killed.")
    total = sum(causes.values())
    if not total:
        return section(title, f"None, in {number(ticks)} ticks.")
    rows = (_cause(cause, n, max(causes.values())) for cause, n in causes.items())
    return section(title, f"{number(total)} missed, in {number(ticks)} ticks.", *rows)


def machine_section(profile: Profile) -> Markup:
    """The section about the machine that the numbers are valid for."""
    parts = [
        tag("h3", "Noise floor"),
        _noise(profile.noise_floor),
        tag("h3", "Threads"),
        _by_name("thread", profile.model_dump(include={"threads"})["threads"]),
        tag("h3", "Memory"),
        _by_name("process", profile.model_dump(include={"memory"})["memory"]),
        tag("h3", "Power, clocks, temperature"),
        _device(profile.device),
        tag("h3", "Machine"),
        _pairs(profile.machine),
    ]
    return section("The machine", "The machine that these numbers are valid for.", *parts)


def _cause(cause: str, n: int, most: int) -> Markup:
    width = 100 * n / most
    return tag(
        "div",
        tag("b", phrase(cause), tag("small", f" {_CAUSES.get(cause, '')}")),
        canvas(100, 10, tag("rect", x=0, y=1, width=width, height=8), aria_hidden="true"),
        tag("span", number(n)),
        class_="layer cause",
    )


def _noise(rows: Mapping[str, Ratio]) -> Markup:
    if not rows:
        return tag("p", "Not measured: only v2a profile BUNDLE runs an engine against itself.")
    lead = (
        "A/A: each engine against itself, before anything else runs. A smaller difference is noise."
    )
    cells = ((graph, ratio(row.ratio), *map(ratio, row.ci95)) for graph, row in rows.items())
    head = ("graph", "ratio", "95 % from", "to")
    return joined([tag("p", lead), table(head, cells)])


def _by_name(what: str, rows: Mapping[str, Mapping[str, Any]]) -> Markup:
    if not rows:
        return tag("p", "Not measured.")
    columns = list(dict.fromkeys(key for row in rows.values() for key, _ in _flat(row)))
    cells = ((name, *_row(row, columns)) for name, row in rows.items())
    return table((what, *map(_heading, columns)), cells)


def _device(board: Board | None) -> Markup:
    if board is None:
        return tag("p", "Not read: this is not a Jetson.")
    slowed = board.throttled
    says = "The board slowed down:" if slowed else "The board never slowed down."
    quantities = {
        "power_w": board.power_w,
        "temperature_c": board.temperature_c,
        "clock_mhz": board.clock_mhz,
    }
    cells = (
        (what, _unit(quantity), number(found.mean), number(found.max))
        for quantity, seen in quantities.items()
        for what, found in seen.items()
    )
    return joined(
        [
            tag("p", f"Power mode {board.power_mode or 'not known'}."),
            tag("p", says, class_="says bad" if slowed else None),
            tag("ul", *(tag("li", moment) for moment in slowed)),
            table(("", "of", "mean", "max"), cells),
        ]
    )


def _row(row: Mapping[str, Any], columns: list[str]) -> Iterator[str]:
    found = dict(_flat(row))
    return (_said(found.get(column)) for column in columns)


def _flat(row: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, object]]:
    """Every value by its dotted path; of quantiles only p50, p99 and the maximum."""
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


def _pairs(facts: Measured) -> Markup:
    values = list(_flat(facts.model_dump()))
    if not values:
        return tag("p", "Not recorded.")
    pairs = (
        tag("div", tag("dt", _heading(path)), tag("dd", _said(value))) for path, value in values
    )
    return tag("dl", *pairs, class_="pairs")


def _said(value: object) -> str:
    return number(value) if value is None or isinstance(value, (int, float)) else str(value)
