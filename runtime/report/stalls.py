"""What stood out in a run: spans and silences far longer than their own kind, and late ticks.

A stall is judged against its own kind in the same thread: a span against all spans of its stage, a
silence against all silences between the same two stages. Its score is the excess over the median
in units of the ordinary spread (1.4826 times the median absolute deviation, Rousseeuw & Croux
1993), no spread counted below 1 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from v2a.names import STAGES
from v2a.spans import STAGE_INDEX

Rows = npt.NDArray[np.int64]  # [n, 4]: stage index, t0_ns, t1_ns, arg

LEAST_SCORE: Final = 8.0
LEAST_EXCESS_MS: Final = 5.0
LEAST_OF_A_KIND: Final = 8  # fewer have no ordinary
_SPREAD_FLOOR_MS: Final = 1.0
_SAME: Final = 0.8  # a part that has so much of the whole's excess explains it


@dataclass(frozen=True, slots=True)
class Stall:
    """One of them. `stages` is the stage that took long, or the two around a silence."""

    thread: str
    stages: tuple[str, ...]
    t0_ns: int
    t1_ns: int
    typical_ms: float
    score: float

    @property
    def took_ms(self) -> float:
        return (self.t1_ns - self.t0_ns) / 1e6

    @property
    def excess_ms(self) -> float:
        return self.took_ms - self.typical_ms

    def overlaps(self, other: Stall) -> bool:
        return self.t0_ns < other.t1_ns and other.t0_ns < self.t1_ns


@dataclass(frozen=True, slots=True)
class Ticks:
    """The control loop against its grid."""

    period_ns: int
    starts_ns: npt.NDArray[np.int64]
    late_ns: npt.NDArray[np.int64]  # of each tick, since its grid point
    missed_ns: npt.NDArray[np.int64]  # the grid points at which no tick began


def find_stalls(spans: Mapping[str, Rows]) -> list[Stall]:
    """All stalls of the run, the longest excess first; one for what overlaps in a thread."""
    found = [
        stall
        for thread, rows in spans.items()
        for stall in _explained([*_slow(thread, rows), *_silent(thread, rows)])
    ]
    return sorted(found, key=lambda stall: stall.excess_ms, reverse=True)


def against_grid(starts_ns: npt.NDArray[np.int64], period_ns: int) -> Ticks:
    """How late each tick was, and which grid points went without one.

    The grid's phase is not recorded: it is taken from the earliest ticks (1 % of them), as a tick
    is never early.
    """
    if len(starts_ns) < 2:
        return Ticks(period_ns, starts_ns, np.zeros_like(starts_ns), np.zeros(0, np.int64))
    half = period_ns // 2
    within = (starts_ns - starts_ns[0] + half) % period_ns - half
    phase_ns = int(starts_ns[0] + np.quantile(within, 0.01))
    # A tick of the earliest 1 % may lie a little before the phase: it still is that grid point's.
    place = (starts_ns - phase_ns + period_ns // 20) // period_ns
    late_ns = np.maximum(starts_ns - phase_ns - place * period_ns, 0)
    missed = np.setdiff1d(np.arange(place[0], place[-1] + 1), place)
    return Ticks(period_ns, starts_ns, late_ns, phase_ns + missed * period_ns)


def _slow(thread: str, rows: Rows) -> Iterator[Stall]:
    for index in np.unique(rows[:, 0]).tolist():
        kind = rows[rows[:, 0] == index]
        yield from _outliers(thread, (STAGES[index],), kind[:, 1], kind[:, 2])


def _silent(thread: str, rows: Rows) -> Iterator[Stall]:
    """Between spans; what lies inside another span is not looked at."""
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 1]))]
    if len(rows) < 2:
        return
    busy_until = np.maximum.accumulate(rows[:, 2])
    outer = np.concatenate([[True], rows[1:, 2] > busy_until[:-1]])
    rows, busy_until = rows[outer], busy_until[outer]
    after, before = rows[:-1, 0], rows[1:, 0]
    t0_ns, t1_ns = busy_until[:-1], np.maximum(rows[1:, 1], busy_until[:-1])
    for pair in np.unique(after * len(STAGES) + before).tolist():
        kind = after * len(STAGES) + before == pair
        stages = (STAGES[pair // len(STAGES)], STAGES[pair % len(STAGES)])
        yield from _outliers(thread, stages, t0_ns[kind], t1_ns[kind])


def _outliers(thread: str, stages: tuple[str, ...], t0_ns: Rows, t1_ns: Rows) -> Iterator[Stall]:
    if len(t0_ns) < LEAST_OF_A_KIND:
        return
    took_ms = (t1_ns - t0_ns) / 1e6
    typical_ms = float(np.median(took_ms))
    spread_ms = 1.4826 * float(np.median(np.abs(took_ms - typical_ms)))
    scores = (took_ms - typical_ms) / max(spread_ms, _SPREAD_FLOOR_MS)
    far = (scores >= LEAST_SCORE) & (took_ms - typical_ms >= LEAST_EXCESS_MS)
    for k in np.flatnonzero(far).tolist():
        yield Stall(thread, stages, int(t0_ns[k]), int(t1_ns[k]), typical_ms, float(scores[k]))


def _explained(stalls: list[Stall]) -> list[Stall]:
    """One stall for each group that overlaps: the innermost that has most of the excess, so a tick
    is not named where the bus in it was slow."""
    groups: list[list[Stall]] = []
    for stall in sorted(stalls, key=lambda stall: stall.t0_ns):
        if groups and any(stall.overlaps(other) for other in groups[-1]):
            groups[-1].append(stall)
        else:
            groups.append([stall])
    return [_cause(group) for group in groups]


def _cause(group: list[Stall]) -> Stall:
    most_ms = max(stall.excess_ms for stall in group)
    enough = (stall for stall in group if stall.excess_ms >= _SAME * most_ms)
    return min(enough, key=lambda stall: stall.took_ms)


def ticks_of(spans: Mapping[str, Rows]) -> npt.NDArray[np.int64]:
    """When each control tick began, in order."""
    starts = [rows[rows[:, 0] == STAGE_INDEX["tick"], 1] for rows in spans.values() if len(rows)]
    return np.sort(np.concatenate(starts)) if starts else np.zeros(0, np.int64)
