"""Finds stalls (spans and pauses far longer than others of their kind) and late control ticks.

A span is compared with all spans of its stage in the same thread, and a pause with all pauses
between the same two stages. Its score is the excess over the median, divided by the usual spread:
1.4826 times the median absolute deviation (Rousseeuw & Croux 1993), at least 1 ms.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from v2a.spans import STAGE_INDEX

Rows = npt.NDArray[np.int64]  # [n, 4]: stage index, t0_ns, t1_ns, arg

LEAST_SCORE: Final = 8.0
LEAST_EXCESS_MS: Final = 5.0
LEAST_OF_A_KIND: Final = 8  # with fewer there is no usual length
_SPREAD_FLOOR_MS: Final = 1.0
_SAME: Final = 0.8  # an inner span with this part of the outer span's excess explains it


@dataclass(frozen=True, slots=True)
class Stall:
    """A stall. `stages` is the stage that took long, or the two stages around a pause."""

    thread: str
    stages: tuple[str, ...]
    t0_ns: int
    t1_ns: int
    typical_ms: float
    score: float

    @property
    def took_ms(self) -> float:
        """Its duration."""
        return (self.t1_ns - self.t0_ns) / 1e6

    @property
    def excess_ms(self) -> float:
        """How much longer it took than usual."""
        return self.took_ms - self.typical_ms

    def overlaps(self, other: Stall) -> bool:
        """Whether both stalls overlap in time."""
        return self.t0_ns < other.t1_ns and other.t0_ns < self.t1_ns


@dataclass(frozen=True, slots=True)
class Ticks:
    """The control ticks compared with their grid."""

    period_ns: int
    starts_ns: npt.NDArray[np.int64]  # [n] start of each tick
    late_ns: npt.NDArray[np.int64]  # [n] delay of each tick after its grid point
    missed_ns: npt.NDArray[np.int64]  # [m] grid points without a tick


def find_stalls(spans: Mapping[str, Rows], stages: Sequence[str]) -> list[Stall]:
    """Find all stalls of the run, the longest excess first.

    `spans` is thread -> rows, int64 [n, 4], and `stages` names the stages by index. If
    stalls of a thread overlap, only the cause is kept.
    """
    found = [
        stall
        for thread, rows in spans.items()
        for stall in _explained([*_slow(thread, rows, stages), *_silent(thread, rows, stages)])
    ]
    return sorted(found, key=lambda stall: stall.excess_ms, reverse=True)


def compare_with_grid(starts_ns: npt.NDArray[np.int64], period_ns: int) -> Ticks:
    """Find how late each tick was, and which grid points had no tick.

    `starts_ns` are the starts of the ticks, int64 [n] ns, sorted. The recording does not hold the
    phase of the grid. A tick is never early, so the earliest 1 % of the ticks give the phase.
    """
    if len(starts_ns) < 2:
        return Ticks(period_ns, starts_ns, np.zeros_like(starts_ns), np.zeros(0, np.int64))
    half = period_ns // 2
    within = (starts_ns - starts_ns[0] + half) % period_ns - half
    phase_ns = int(starts_ns[0] + np.quantile(within, 0.01))
    # A tick of the earliest 1 % may start a little before the phase; it belongs to that grid point.
    place = (starts_ns - phase_ns + period_ns // 20) // period_ns
    late_ns = np.maximum(starts_ns - phase_ns - place * period_ns, 0)
    missed = np.setdiff1d(np.arange(place[0], place[-1] + 1), place)
    return Ticks(period_ns, starts_ns, late_ns, phase_ns + missed * period_ns)


def _slow(thread: str, rows: Rows, stages: Sequence[str]) -> Iterator[Stall]:
    for index in np.unique(rows[:, 0]).tolist():
        kind = rows[rows[:, 0] == index]
        yield from _outliers(thread, (stages[index],), kind[:, 1], kind[:, 2])


def _silent(thread: str, rows: Rows, stages: Sequence[str]) -> Iterator[Stall]:
    """The pauses between spans that are far too long; spans inside other spans do not count."""
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 1]))]
    if len(rows) < 2:
        return
    busy_until = np.maximum.accumulate(rows[:, 2])
    outer = np.concatenate([[True], rows[1:, 2] > busy_until[:-1]])
    rows, busy_until = rows[outer], busy_until[outer]
    after, before = rows[:-1, 0], rows[1:, 0]
    t0_ns, t1_ns = busy_until[:-1], np.maximum(rows[1:, 1], busy_until[:-1])
    pairs = after * len(stages) + before
    for pair in np.unique(pairs).tolist():
        around = (stages[pair // len(stages)], stages[pair % len(stages)])
        yield from _outliers(thread, around, t0_ns[pairs == pair], t1_ns[pairs == pair])


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
    """Keep one stall of each group that overlaps: the innermost one with most of the excess.

    This names the bus instead of the tick around it.
    """
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
    """The start of each control tick, int64 [n], in order; `spans` is thread -> rows [m, 4]."""
    starts = [rows[rows[:, 0] == STAGE_INDEX["tick"], 1] for rows in spans.values() if len(rows)]
    return np.sort(np.concatenate(starts)) if starts else np.zeros(0, np.int64)
