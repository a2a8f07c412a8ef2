"""The same thing measured with other options, in one table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from runtime.config.robot_yaml import RunConfig
from runtime.engines import BACKENDS
from runtime.profile.compare import compare
from runtime.profile.live import Profile, Subject
from v2a.errors import ConfigError

Point = dict[str, str]  # option -> value, as they were written
Setting = Callable[[Subject, str], Subject]

COLUMNS: Final = (
    ("stages", "frame_encode"),
    ("stages", "observe"),
    ("stages", "denoise"),
    ("stages", "condition"),
    ("stages", "tick"),
    ("ages", "condition_age"),
    ("ages", "frame_to_motor"),
)


@dataclass(frozen=True, slots=True)
class _Key:
    """An option that is a key of robot.yaml."""

    section: str
    name: str

    def __call__(self, subject: Subject, value: str) -> Subject:
        whole = subject.config.model_dump(mode="json")
        whole[self.section][self.name] = float(value)
        return replace(subject, config=RunConfig.model_validate(whole))


def _engine(subject: Subject, value: str) -> Subject:
    if value not in BACKENDS:
        raise ValueError(f"one of {', '.join(BACKENDS)}")
    return replace(subject, engine=value)


def _threads(subject: Subject, value: str) -> Subject:
    if int(value) < 1:
        raise ValueError("1 or more")
    return replace(subject, threads=int(value))


SETTINGS: Final[Mapping[str, Setting]] = {
    "engine": _engine,
    "threads": _threads,
    "rate_hz": _Key("control", "rate_hz"),
    "fps": _Key("camera", "fps"),
    "system1.period_s": _Key("system1", "period_s"),
    "system2.period_s": _Key("system2", "period_s"),
}
REFUSED: Final = {
    "steps": "the solver's steps are unrolled in denoise.onnx when the bundle is exported: export "
    "one with other steps, then v2a profile BUNDLE OTHER",
    "precision": "a graph's precision is chosen when the bundle is exported: export another, then "
    "v2a profile BUNDLE OTHER",
}


def points(axes: Sequence[str]) -> list[Point]:
    """Every combination of `NAME=VALUE,VALUE...`. Raises ConfigError with the reason."""
    chosen = {}
    for axis in axes:
        name, equals, values = axis.partition("=")
        if name in REFUSED:
            raise ConfigError(f"--sweep {axis}: {REFUSED[name]}")
        if name not in SETTINGS or not equals or not all(values.split(",")):
            known = ", ".join(SETTINGS)
            raise ConfigError(f"--sweep {axis}: write NAME=VALUE,VALUE with NAME one of {known}")
        chosen[name] = values.split(",")
    return [
        dict(zip(chosen, values, strict=True)) for values in itertools.product(*chosen.values())
    ]


def with_options(subject: Subject, point: Point) -> Subject:
    """`subject` at that point. Raises ConfigError for a value that can't be."""
    for name, value in point.items():
        try:
            subject = SETTINGS[name](subject, value)
        except (ValueError, ValidationError) as fault:
            reason = fault.errors()[0]["msg"] if isinstance(fault, ValidationError) else str(fault)
            raise ConfigError(f"--sweep {name}={value}: {reason}") from fault
    return subject


def sweep(
    subject: Subject, axes: Sequence[str], measure: Callable[[Subject, Path], Profile], folder: Path
) -> list[dict[str, Any]]:
    """A row a point: its options, its folder, its figures, and how it compares with the first."""
    planned = [(point, with_options(subject, point)) for point in points(axes)]
    rows: list[dict[str, Any]] = []
    first: Profile | None = None
    for point, chosen in planned:
        place = folder / ",".join(f"{name}={value}" for name, value in point.items())
        profile = measure(chosen, place)
        first = first or profile
        rows.append(
            {
                "options": point,
                "folder": str(place),
                "missed_ticks": sum(profile["missed_ticks"].values()),
                "p50_ms": _figures(profile, "p50_ms"),
                "p99_ms": _figures(profile, "p99_ms"),
                "against_first": compare(first, profile)["verdict"],
            }
        )
    return rows


def _figures(profile: Profile, quantile: str) -> dict[str, float]:
    return {name: profile[kind][name][quantile] for kind, name in COLUMNS if name in profile[kind]}


def as_text(rows: Sequence[dict[str, Any]]) -> str:
    """p50 / p99 in ms, a line a point, and how it compares with the first."""
    return "\n".join(_lines(rows))


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[str]:
    names = [", ".join(f"{n}={v}" for n, v in row["options"].items()) for row in rows]
    width = max(map(len, names))
    shown = [name for _, name in COLUMNS if any(name in row["p50_ms"] for row in rows)]
    yield f"{'p50 / p99 ms':<{width}}" + "".join(f"{name:>18}" for name in shown) + "  missed ticks"
    for name, row in zip(names, rows, strict=True):
        cells = "".join(f"{_cell(row, column):>18}" for column in shown)
        yield f"{name:<{width}}{cells}{row['missed_ticks']:>14}"
    for name, row in zip(names[1:], rows[1:], strict=True):
        yield f"{name} against {names[0]}: {row['against_first']}"


def _cell(row: dict[str, Any], column: str) -> str:
    if column not in row["p50_ms"]:
        return "-"
    return f"{row['p50_ms'][column]:.2f} / {row['p99_ms'][column]:.2f}"
