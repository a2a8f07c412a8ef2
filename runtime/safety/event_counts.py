"""Counts events by their text, for texts that somebody else writes."""

from __future__ import annotations

from collections import Counter
from typing import Final

KINDS_MAX: Final = 48
TEXT_MAX: Final = 100
OTHER: Final = "other"


class EventCounts(Counter[str]):
    """How often each event happened. `add` keeps at most `KINDS_MAX` kinds, and then `OTHER`.

    A workspace's reason may hold a number, although it should not. Then each refusal is a new kind.
    """

    def add(self, event: str) -> None:
        """Count `event`, cut to `TEXT_MAX` characters."""
        event = event[:TEXT_MAX]
        known = event in self or len(self) < KINDS_MAX
        self[event if known else OTHER] += 1
