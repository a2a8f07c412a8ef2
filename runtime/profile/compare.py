"""Two profiles, stage by stage: better, worse or within noise."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np

from runtime.profile.stalls import Row, excess_ms, in_words, kind
from runtime.profile.statistics import FEWEST, Interval, Series, between_runs, ratio, typical
from v2a.errors import ConfigError
from v2a.names import AGES, STAGES

SCHEMA: Final = 1
# How much two runs of the same thing differ on top of what each of them can see of its own noise:
# where memory lies, which core, which neighbours. Measured: docs/profile.md.
RUN_TO_RUN: Final = 0.05
# Above so much, others made stages wait for a core. A difference that such waits explain is not of
# the program.
OTHERS_CORES: Final = 0.1
NEW_STALL: Final = 2.0  # times as long as any of the same thread and stage in the other run
_FIX: Final = "give a profile.json of v2a profile, or its folder"

Profile = dict[str, Any]


def read_profile(path: Path) -> Profile:
    """A profile.json, or the folder that it is in. Raises ConfigError where it is none."""
    path = path / "profile.json" if path.is_dir() else path
    try:
        profile = json.loads(path.read_text(encoding="utf-8"))
        schema = profile["schema"]
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {_FIX}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{path}: not a profile; {_FIX}") from error
    if schema != SCHEMA:
        raise ConfigError(f"{path}: schema {schema}, this v2a reads {SCHEMA}; profile once more")
    return dict(profile)


def compare(before: Profile, after: Profile) -> dict[str, Any]:
    """Per stage and age that both have often enough: the ratio of after to before, its interval, a
    verdict."""
    names = [n for n in (*STAGES, *AGES) if _sampled(before, n) and _sampled(after, n)]
    rows = {name: _row(name, before, after, len(names)) for name in names}
    stalls = new_stalls(before, after)
    return {
        "verdict": "; ".join([*named(rows), *_new(stalls), *_others(before, after)]),
        "stages": {name: row for name, row in rows.items() if name in STAGES},
        "ages": {name: row for name, row in rows.items() if name in AGES},
        "new_stalls": stalls,
    }


def _sampled(profile: Profile, name: str) -> bool:
    return len(profile["samples"].get(name, ())) >= FEWEST


def _row(name: str, before: Profile, after: Profile, comparisons: int) -> dict[str, Any]:
    floor = math.log1p(RUN_TO_RUN) + max(_floor(before, name), _floor(after, name))
    floor += _waiting(before, after, name) if _crowded(before, after) else 0.0
    floor += _machine(before, after)
    over, under = (np.array(profile["samples"][name], float) for profile in (after, before))
    between = between_runs(_repeats(before, name), _repeats(after, name))
    found = ratio(over, under, comparisons, floor, between)
    return found.as_json() | {"verdict": verdict(found)}


def _repeats(profile: Profile, name: str) -> Series:
    """What the stage typically took in the run itself and in each repetition."""
    again = profile["repeats"].get(name, [])
    return np.array([typical(np.array(profile["samples"][name])), *again] if again else [])


def verdict(found: Interval) -> str:
    """Of a ratio of times: `better`, `worse` or `within_noise`."""
    if found.low > 1:
        return "worse"
    return "better" if found.high < 1 else "within_noise"


def _floor(profile: Profile, graph: str) -> float:
    """How far from 1 the same engine, run twice, came out in that run; 0 where it was not tried."""
    measured = profile["noise_floor"].get(graph)
    return widest(measured) if measured else 0.0


def widest(measured: Mapping[str, Any]) -> float:
    """How far from 1 the `ci95` of an A/A reaches, as a logarithm."""
    return max((abs(math.log(bound)) for bound in measured["ci95"] if bound), default=0.0)


def _crowded(before: Profile, after: Profile) -> bool:
    """Whether other programs took part of the machine in one of the runs, or nobody knows."""
    return any(
        profile["others_cores"] is None or profile["others_cores"] > OTHERS_CORES
        for profile in (before, after)
    )


def _machine(before: Profile, after: Profile) -> float:
    """How much faster or slower the machine itself was, where both runs know."""
    one_ms, other_ms = before["yardstick_ms"], after["yardstick_ms"]
    return abs(math.log(other_ms / one_ms)) if one_ms and other_ms else 0.0


def _waiting(before: Profile, after: Profile, name: str) -> float:
    """What waiting for a core can explain: all of it may have fallen on this stage, which is the
    first after a wake-up in one run and not in the other."""
    waited_ms = max(_waited_ms(before, name), _waited_ms(after, name))
    short_ms = min(typical(np.array(profile["samples"][name])) for profile in (before, after))
    return math.log1p(waited_ms / short_ms) if short_ms > 0 else math.inf


def _waited_ms(profile: Profile, name: str) -> float:
    """For each run of the stage, how long its threads were without a core; of an age, for each
    chunk, all threads."""
    stages, threads = profile["stages"], profile["threads"]
    row = stages[name] if name in STAGES else stages.get("denoise", {"n": 1})
    names: Iterable[str] = row["thread"].split(", ") if name in STAGES else threads
    delays_ms = (threads.get(thread, {}).get("run_delay_ms", 0.0) for thread in names)
    return float(sum(delays_ms) / max(row["n"], 1))


def new_stalls(before: Profile, after: Profile) -> list[Row]:
    """Those of `after` that are `NEW_STALL` times as long as any of their kind in `before`."""
    known: dict[tuple[str, ...], float] = {}
    for stall in before["tail"]["stalls"]:
        known[kind(stall)] = max(known.get(kind(stall), 0.0), excess_ms(stall))
    return [
        stall
        for stall in after["tail"]["stalls"]
        if excess_ms(stall) > NEW_STALL * known.get(kind(stall), 0.0)
    ]


def named(rows: Mapping[str, Mapping[str, Any]]) -> Iterator[str]:
    """In words what is worse, what is better, or that it is all within noise."""
    for which in ("worse", "better"):
        found = [
            f"{name} {row['ratio']:.2f} ({row['ci95'][0]:.2f} to {row['ci95'][1]:.2f})"
            for name, row in rows.items()
            if row["verdict"] == which
        ]
        if found:
            yield f"{which}: {', '.join(found)}"
    if all(row["verdict"] == "within_noise" for row in rows.values()):
        yield "within noise"


def _new(stalls: list[Row]) -> Iterator[str]:
    if stalls:
        yield f"new: {in_words(stalls[0])}"


def _others(before: Profile, after: Profile) -> Iterator[str]:
    cores = (before["others_cores"], after["others_cores"])
    if None not in cores and _crowded(before, after):
        yield f"other programs used {cores[0]:g} and {cores[1]:g} cores"


def as_text(found: dict[str, Any]) -> str:
    """A table and the sentence."""
    lines = [f"{'stage':<16}{'ratio':>8}{'95 % interval':>20}  verdict"]
    for name, row in (found["stages"] | found["ages"]).items():
        low, high = row["ci95"]
        lines.append(
            f"{name:<16}{row['ratio']:>8.3f}{f'{low:.3f} to {high:.3f}':>20}  "
            f"{row['verdict'].replace('_', ' ')}"
        )
    return "\n".join([*lines, found["verdict"]])
