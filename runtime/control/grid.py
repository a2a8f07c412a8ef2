"""Runs the control loop at a fixed period."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from v2a.clock import Clock


class Ticking(Protocol):
    """A loop that `run_periodic` can run."""

    period_ns: int

    def missed(self, ticks: int) -> None:
        """Count skipped grid points."""
        ...

    def tick(self, now_ns: int, late_ns: int) -> None:
        """Run one cycle, `late_ns` after its grid point."""
        ...

    def close(self) -> None: ...


def run_periodic(loop: Ticking, clock: Clock, stopping: Callable[[], bool]) -> None:
    """Tick at start + k * period until `stopping()`, then close the loop.

    Grid points that pass during a late tick are skipped and counted.
    """
    due_ns = clock.now_ns()
    try:
        while not stopping():
            clock.sleep_until_ns(due_ns)
            now_ns = clock.now_ns()
            late_ns = now_ns - due_ns
            if skipped := late_ns // loop.period_ns:
                loop.missed(skipped)
            loop.tick(now_ns, late_ns)
            due_ns += (skipped + 1) * loop.period_ns
    finally:
        loop.close()
