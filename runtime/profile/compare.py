"""Compares two profiles stage by stage: better, worse or within noise."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Literal

import numpy as np
from pydantic import Field

from runtime.profile.stalls import describe_stall, excess_ms, kind
from runtime.profile.statistics import FEWEST, Interval, Series, between_runs, ratio, typical
from runtime.profile_model import Profile, Ratio, StallRow
from v2a.measured import Measured, Number
from v2a.names import AGES
from v2a.terminal import wide_enough

# Two runs of one program differ by this share beyond the noise within each: memory layout, the
# choice of cores and other programs change. Measured: docs/measurements/profile.md.
RUN_TO_RUN: Final = 0.05
# If other programs used more cores than this, our stages waited for a core because of them.
OTHERS_CORES: Final = 0.1
NEW_STALL: Final = 2.0  # times the longest earlier stall of the same thread and stage

CANNOT_TELL: Final = 0.5  # where a change by half would not be seen, "within noise" says nothing

Verdict = Literal["better", "worse", "within_noise", "cannot_tell"]


class ComparedRatio(Ratio):
    """The time in B divided by the time in A, and a verdict."""

    verdict: Verdict = Field(
        description="`better`, `worse`, `within_noise`, or `cannot_tell` if even a change by half "
        "could not have been seen"
    )
    smallest_change: Number = Field(
        description="the smallest change that could have been seen: 0.2 for 20 %; null with fewer "
        "than 16 samples"
    )


class ProfileComparison(Measured):
    """`v2a compare A B --json` of two profiles."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    verdict: str = Field(description="one sentence for people")
    stages: dict[str, ComparedRatio] = Field(
        description="stage that both profiles have two samples of -> how it changed"
    )
    ages: dict[str, ComparedRatio] = Field(description="age -> how it changed")
    new_stalls: tuple[StallRow, ...] = Field(
        description="stalls of B at least twice as long as any of the same kind in A"
    )


def compare_profiles(before: Profile, after: Profile) -> ProfileComparison:
    """Compare each stage and age of two profiles, and find the stalls that are new.

    Stages are compared by name. A stage or age with fewer than two samples in one profile is left
    out.
    """
    stages = [*before.stages]
    names = [n for n in (*stages, *AGES) if _sampled(before, n) and _sampled(after, n)]
    rows = {name: _row(name, before, after, len(names)) for name in names}
    stalls = new_stalls(before, after)
    return ProfileComparison(
        verdict="; ".join(
            [*changes(rows), *_new(stalls), *_others(before, after), *_damaged(before, after)]
        ),
        stages={name: row for name, row in rows.items() if name in stages},
        ages={name: row for name, row in rows.items() if name in AGES},
        new_stalls=tuple(stalls),
    )


def judged(found: Interval) -> ComparedRatio:
    """Judge a ratio of times: worse if its whole interval is above 1, better if it is below."""
    known = 0 < found.ratio < math.inf
    smallest = round(found.high / found.ratio - 1, 4) if known else math.nan
    verdict: Verdict = "within_noise" if smallest <= CANNOT_TELL else "cannot_tell"
    if found.low > 1:
        verdict = "worse"
    elif found.high < 1:
        verdict = "better"
    row = found.rounded()
    return ComparedRatio(ratio=row.ratio, ci95=row.ci95, verdict=verdict, smallest_change=smallest)


def width(noise: Ratio) -> float:
    """Return how far the interval of an A/A ratio reaches from 1, as a logarithm."""
    return max((abs(math.log(end)) for end in noise.ci95 if 0 < end < math.inf), default=0.0)


def changes(rows: Mapping[str, ComparedRatio]) -> Iterator[str]:
    """Yield sentences: what is worse and what is better, or that all is within noise."""
    for verdict in ("worse", "better"):
        found = [
            f"{name} {row.ratio:.2f} ({row.ci95[0]:.2f} to {row.ci95[1]:.2f})"
            for name, row in rows.items()
            if row.verdict == verdict
        ]
        if found:
            yield f"{verdict}: {', '.join(found)}"
    blind = [f"{n} ({_seen(row)})" for n, row in rows.items() if row.verdict == "cannot_tell"]
    if blind:
        yield f"cannot tell: {', '.join(blind)}"
    elif all(row.verdict == "within_noise" for row in rows.values()):
        yield "within noise"


def _seen(row: ComparedRatio) -> str:
    """What could have been seen."""
    if math.isnan(row.smallest_change):
        return f"fewer than {FEWEST} samples"
    return f"no change below {row.smallest_change:.0%} could be seen"


def new_stalls(before: Profile, after: Profile) -> list[StallRow]:
    """Return the stalls of `after` that are far longer than any of their kind in `before`."""
    known_ms: dict[tuple[str, ...], float] = {}
    for stall in before.tail.stalls:
        known_ms[kind(stall)] = max(known_ms.get(kind(stall), 0.0), excess_ms(stall))
    return [
        stall
        for stall in after.tail.stalls
        if excess_ms(stall) > NEW_STALL * known_ms.get(kind(stall), 0.0)
    ]


def comparison_as_text(found: ProfileComparison) -> str:
    """Format the comparison: a table, then the verdict."""
    first = wide_enough(found.stages, 16)
    lines = [f"{'stage':<{first}}{'ratio':>8}{'95 % interval':>18}{'can see':>9}  verdict"]
    for name, row in (found.stages | found.ages).items():
        low, high = row.ci95
        lines.append(
            f"{name:<{first}}{row.ratio:>8.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{row.smallest_change:>9.0%}  "
            f"{row.verdict.replace('_', ' ')}"
        )
    return "\n".join([*lines, found.verdict])


def _damaged(before: Profile, after: Profile) -> Iterator[str]:
    for name, profile in (("A", before), ("B", after)):
        if profile.damaged:
            yield f"{name} is incomplete: {profile.damaged}"


def _sampled(profile: Profile, name: str) -> bool:
    return len(profile.samples.get(name, ())) > 1  # one is no series: the instruction


def _row(name: str, before: Profile, after: Profile, comparisons: int) -> ComparedRatio:
    floor = math.log1p(RUN_TO_RUN) + max(_noise_floor(before, name), _noise_floor(after, name))
    floor += _waiting(before, after, name) if _crowded(before, after) else 0.0
    floor += _machine_speed(before, after)
    over, under = (np.array(profile.samples[name], float) for profile in (after, before))
    between = between_runs(_repeats_ms(before, name), _repeats_ms(after, name))
    return judged(ratio(over, under, comparisons, floor, between))


def _repeats_ms(profile: Profile, name: str) -> Series:
    """The typical time in the run itself and in each repetition; [0] without repetitions."""
    again = profile.repeats.get(name, ())
    return np.array([typical(np.array(profile.samples[name])), *again] if again else [])


def _noise_floor(profile: Profile, graph: str) -> float:
    measured = profile.noise_floor.get(graph)
    return 0.0 if measured is None else width(measured)


def _crowded(before: Profile, after: Profile) -> bool:
    """Whether other programs used part of the machine in one of the runs, or this is unknown."""
    return any(
        profile.others_cores is None or profile.others_cores > OTHERS_CORES
        for profile in (before, after)
    )


def _machine_speed(before: Profile, after: Profile) -> float:
    """How much faster or slower the machine was, as a logarithm; 0 if one run does not know."""
    before_ms, after_ms = before.yardstick_ms, after.yardstick_ms
    return abs(math.log(after_ms / before_ms)) if before_ms and after_ms else 0.0


def _waiting(before: Profile, after: Profile, name: str) -> float:
    """The largest change that waiting for a core can explain, as a logarithm.

    All waiting may be in this stage: in one run it is the first stage after a wake-up, and in the
    other run it is not.
    """
    waited_ms = max(_waited_ms(before, name), _waited_ms(after, name))
    short_ms = min(typical(np.array(profile.samples[name])) for profile in (before, after))
    return math.log1p(waited_ms / short_ms) if short_ms > 0 else math.inf


def _waited_ms(profile: Profile, name: str) -> float:
    """The time that threads waited for a core.

    For a stage: its own threads, per run of the stage. For an age: all threads, per chunk.
    """
    threads = profile.threads
    names: Iterable[str]
    if (row := profile.stages.get(name)) is not None:
        names, n = row.thread.split(", "), row.n
    else:
        chunks = profile.ages.get("condition_age")  # each chunk has one
        names, n = threads, chunks.n if chunks else 1
    delays_ms = (threads[thread].run_delay_ms or 0.0 for thread in names if thread in threads)
    return float(sum(delays_ms) / max(n, 1))


def _new(stalls: list[StallRow]) -> Iterator[str]:
    if stalls:
        yield f"new: {describe_stall(stalls[0])}"


def _others(before: Profile, after: Profile) -> Iterator[str]:
    cores = (before.others_cores, after.others_cores)
    if None not in cores and _crowded(before, after):
        yield f"other programs used {cores[0]:g} and {cores[1]:g} cores"
