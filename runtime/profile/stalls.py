"""The tail of a run in words: which thread stood still, in which stage, when."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from runtime.report.stalls import Stall

SHOWN: Final = 50

Row = dict[str, Any]  # a stall in profile.json


def tail(stalls: Sequence[Stall], t0_ns: int) -> dict[str, Any]:
    """A sentence, how many there were, and the longest ones, longest first."""
    rows = sorted((_row(stall, t0_ns) for stall in stalls), key=excess_ms, reverse=True)
    if not rows:
        return {"verdict": "no thread stood still", "n": 0, "stalls": []}
    more = f", the longest of {len(rows)}" if len(rows) > 1 else ""
    return {"verdict": f"{in_words(rows[0])}{more}", "n": len(rows), "stalls": rows[:SHOWN]}


def _row(stall: Stall, t0_ns: int) -> Row:
    return {
        "thread": stall.thread,
        "stage": stall.stages[-1],
        "after": stall.stages[0] if len(stall.stages) > 1 else None,
        "at_s": round((stall.t0_ns - t0_ns) / 1e9, 6),
        "ms": round(stall.took_ms, 4),
        "usual_ms": round(stall.typical_ms, 4),
    }


def excess_ms(row: Row) -> float:
    return float(row["ms"] - row["usual_ms"])


def kind(row: Row) -> tuple[str, ...]:
    """What stalls are compared with: the same thread, the same stage or the same pair of stages."""
    return (row["thread"], row["after"] or "", row["stage"])


def in_words(row: Row) -> str:
    where = f"between {row['after']} and {row['stage']}" if row["after"] else f"in {row['stage']}"
    return (
        f"{row['thread']} stood {excess_ms(row):.0f} ms {where} at {row['at_s']:.3f} s "
        f"({row['ms']:.3g} ms instead of {row['usual_ms']:.3g})"
    )
