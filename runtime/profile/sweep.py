"""Profiles a bundle with every combination of options and puts the results into one table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal

from pydantic import Field, ValidationError

from runtime.config.robot_yaml import RunConfig
from runtime.engines import BACKENDS
from runtime.profile.compare import compare_profiles
from runtime.profile.files import claim_folder
from runtime.profile.options import THREADS_MAX
from runtime.profile.subject import Subject
from runtime.profile_model import BudgetedTimes, Profile
from v2a.errors import ConfigError
from v2a.measured import Measured, Number
from v2a.terminal import columns

Point = dict[str, str]  # option -> value, as the user wrote them
Setting = Callable[[Subject, str], Subject]

AFTER: Final = ("tick", "condition_age", "frame_to_motor")  # columns after the graphs


class SweepPoint(Measured):
    """One combination of options."""

    options: Point = Field(description="option -> value, as written on the command line")
    folder: str = Field(description="folder of its profile")
    missed_ticks: int = Field(description="number of control ticks without their work")
    p50_ms: dict[str, Number] = Field(description="stage or age -> median")
    p99_ms: dict[str, Number] = Field(description="stage or age -> 99th percentile")
    against_first: str = Field(description="how it compares with the first point, in one sentence")


class Sweep(Measured):
    """sweep.json, and `v2a sweep --json`."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    points: tuple[SweepPoint, ...] = Field(description="one row for each combination of options")


@dataclass(frozen=True, slots=True)
class _Key:
    """Sets the key `section.name` of robot.yaml."""

    section: str
    name: str

    def __call__(self, subject: Subject, value: str) -> Subject:
        # What was not set follows from the rest: the bus budget from the rate.
        whole = subject.config.model_dump(mode="json", exclude_unset=True)
        whole.setdefault(self.section, {})[self.name] = _number(value)
        return replace(subject, config=RunConfig.model_validate(whole))


def _engine(subject: Subject, value: str) -> Subject:
    if value not in BACKENDS:
        raise ValueError(f"must be one of {', '.join(BACKENDS)}")
    return replace(subject, engine=value)


def _threads(subject: Subject, value: str) -> Subject:
    if not value.isdecimal() or not 1 <= int(value) <= THREADS_MAX:
        raise ValueError(f"must be a whole number, 1 to {THREADS_MAX}")
    return replace(subject, threads=int(value))


def _number(value: str) -> float:
    try:
        return float(value)
    except ValueError:
        raise ValueError("must be a number") from None


SETTINGS: Final[Mapping[str, Setting]] = {
    "engine": _engine,
    "threads": _threads,
    "rate_hz": _Key("control", "rate_hz"),
    "fps": _Key("camera", "fps"),
    "system1.period_s": _Key("system1", "period_s"),
    "system2.period_s": _Key("system2", "period_s"),
}
REFUSED: Final = {
    "steps": "the solver's steps are unrolled in denoise.onnx when the bundle is exported; export "
    "a second bundle with other steps, then v2a compare BUNDLE OTHER",
    "precision": "a graph's precision is chosen when the bundle is exported; export a second "
    "bundle, then v2a compare BUNDLE OTHER",
}


def points(axes: Sequence[str]) -> list[Point]:
    """Return every combination of the axes `KEY=A,B...`. Raises ConfigError for an unknown key."""
    chosen = {}
    for axis in axes:
        name, equals, values = axis.partition("=")
        if name in REFUSED:
            raise ConfigError(f"{axis}: {REFUSED[name]}")
        if name not in SETTINGS or not equals or not all(values.split(",")):
            known = ", ".join(SETTINGS)
            raise ConfigError(f"{axis}: write KEY=A,B; KEY is one of {known}")
        if name in chosen:
            raise ConfigError(f"{axis}: {name} is there twice; give all its values at once")
        chosen[name] = values.split(",")
        if len(set(chosen[name])) < len(chosen[name]):
            raise ConfigError(f"{axis}: a value is there twice; give each once")
    return [
        dict(zip(chosen, values, strict=True)) for values in itertools.product(*chosen.values())
    ]


def with_options(subject: Subject, point: Point) -> Subject:
    """Return `subject` with the options of `point`. Raises ConfigError for an impossible value."""
    for name, value in point.items():
        try:
            subject = SETTINGS[name](subject, value)
        except (ValueError, ValidationError) as fault:
            reason = fault.errors()[0]["msg"] if isinstance(fault, ValidationError) else str(fault)
            reason = reason.removeprefix("Value error, ")
            raise ConfigError(f"{name}={value}: {reason}") from fault
    return subject


def run_sweep(
    subject: Subject, axes: Sequence[str], measure: Callable[[Subject, Path], Profile], folder: Path
) -> Sweep:
    """Call `measure` with the subject and the folder of each combination of `axes`.

    Each point gets a folder of its own in `folder`, and is compared with the first point. Raises
    ConfigError for a faulty axis, or a folder with content, before anything is measured.
    """
    planned = [
        (point, with_options(subject, point), folder / _folder_name(point))
        for point in points(axes)
    ]
    for _, _, place in planned:
        claim_folder(place)
    rows: list[SweepPoint] = []
    first: Profile | None = None
    for point, chosen, place in planned:
        profile = measure(chosen, place)
        first = first or profile
        rows.append(
            SweepPoint(
                options=point,
                folder=str(place),
                missed_ticks=sum(profile.missed_ticks.values()),
                p50_ms=_figures(profile, "p50_ms"),
                p99_ms=_figures(profile, "p99_ms"),
                against_first=compare_profiles(first, profile).verdict,
            )
        )
    return Sweep(points=tuple(rows))


def _folder_name(point: Point) -> str:
    return ",".join(f"{name}={value}" for name, value in point.items())


def sweep_as_text(table: Sweep) -> str:
    """Format p50 / p99 in ms, a line per point, and how each point compares with the first."""
    return "\n".join(_lines(table.points))


def _figures(profile: Profile, quantile: str) -> dict[str, float]:
    rows: dict[str, BudgetedTimes] = {**profile.stages, **profile.ages}
    names = (*_graphs(profile), *AFTER)
    return {name: getattr(rows[name], quantile) for name in names if name in rows}


def _graphs(profile: Profile) -> Iterator[str]:
    """The graphs of System 1, and the last graph of System 2, which makes the condition."""
    threads = {graph: profile.stages[graph].thread for graph in profile.engines}
    yield from (graph for graph, thread in threads.items() if thread == "system1")
    yield from [graph for graph, thread in threads.items() if thread == "system2"][-1:]


def _lines(rows: Sequence[SweepPoint]) -> Iterator[str]:
    names = [", ".join(f"{n}={v}" for n, v in row.options.items()) for row in rows]
    shown = [*dict.fromkeys(name for row in rows for name in row.p50_ms)]
    cells = [
        (name, *(_cell(row, column) for column in shown), str(row.missed_ticks))
        for name, row in zip(names, rows, strict=True)
    ]
    yield from columns(("p50 / p99 ms", *shown, "missed ticks"), cells)
    for name, row in zip(names[1:], rows[1:], strict=True):
        yield f"{name} against {names[0]}: {row.against_first}"


def _cell(row: SweepPoint, column: str) -> str:
    if column not in row.p50_ms:
        return "-"
    return f"{row.p50_ms[column]:.2f} / {row.p99_ms[column]:.2f}"
