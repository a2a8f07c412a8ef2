"""Writes the stalls of a run as rows of profile.json and as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from runtime.profile_model import StallRow, StallSummary
from runtime.report.stalls import Stall

SHOWN: Final = 50


def summarise_stalls(stalls: Sequence[Stall], t0_ns: int) -> StallSummary:
    """Return a sentence, the number of stalls, and the longest. `t0_ns` is the run's start."""
    rows = sorted((_row(stall, t0_ns) for stall in stalls), key=excess_ms, reverse=True)
    if not rows:
        return StallSummary(verdict="no thread stalled", n=0, stalls=())
    more = f", the longest of {len(rows)}" if len(rows) > 1 else ""
    verdict = f"{describe_stall(rows[0])}{more}"
    return StallSummary(verdict=verdict, n=len(rows), stalls=tuple(rows[:SHOWN]))


def _row(stall: Stall, t0_ns: int) -> StallRow:
    return StallRow(
        thread=stall.thread,
        stage=stall.stages[-1],
        after=stall.stages[0] if len(stall.stages) > 1 else None,
        at_s=round((stall.t0_ns - t0_ns) / 1e9, 6),
        ms=round(stall.took_ms, 4),
        usual_ms=round(stall.typical_ms, 4),
    )


def excess_ms(row: StallRow) -> float:
    """Return how much longer it took than usual, in ms."""
    return row.ms - row.usual_ms


def kind(row: StallRow) -> tuple[str, str, str]:
    """Return thread and stages. Only stalls of the same kind are compared."""
    return (row.thread, row.after or "", row.stage)


def describe_stall(row: StallRow) -> str:
    """Format a stall: `system1 stalled for 50 ms in observe at 7.812 s (55 ms instead of 5.1)`."""
    where = f"between {row.after} and {row.stage}" if row.after else f"in {row.stage}"
    return (
        f"{row.thread} stalled for {excess_ms(row):.0f} ms {where} at {row.at_s:.3f} s "
        f"({row.ms:.3g} ms instead of {row.usual_ms:.3g})"
    )
