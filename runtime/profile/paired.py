"""Compares the engines of two bundles by running them in turn.

Two profiles are minutes apart. On a shared machine the same engine may take twice as long by then.
Here the engines take turns, call by call. Machine drift affects both equally, so this detects
differences that two separate profiles cannot. The first bundle's engine takes part in two copies:
the distance between the copies is the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Final, Literal

from pydantic import Field

from runtime.engines.base import EngineFactory
from runtime.policy.graphs import SUPPLIED
from runtime.profile.compare import RUN_TO_RUN, ComparedRatio, changes, judged, width
from runtime.profile.isolated import Feeds, PolicyChain, run_in_turn, timed_engines
from runtime.profile.statistics import paired_ratio, times_of
from runtime.profile_model import Ratio
from v2a.bundle import Bundle
from v2a.clock import Clock
from v2a.measured import Measured, Times
from v2a.terminal import wide_enough

ROUNDS_MIN: Final = 48  # with fewer rounds, a change of 20 % is often within noise


class ComparedEngine(ComparedRatio):
    """How one engine changed, and the times behind it."""

    before: Times = Field(description="time of A's engine")
    after: Times = Field(description="time of B's engine")
    noise_floor: Ratio = Field(description="A's engine divided by its second copy (A/A)")


class EngineComparison(Measured):
    """`v2a compare A B --json` of two bundles."""

    schema_version: Literal[1] = Field(default=1, description="version of this schema")
    verdict: str = Field(description="one sentence for people")
    engines: dict[str, ComparedEngine] = Field(description="graph -> how its engine changed")


def compare_engines(
    before: Bundle,
    after: Bundle,
    engines: EngineFactory,
    clock: Clock,
    measured: Callable[[str], object] = lambda graph: None,
) -> EngineComparison:
    """Compare the time of each graph's engine between `before` and `after`.

    Calls `measured` with each graph that is done. Raises BundleError if a bundle lacks a graph.
    """
    one = before, _feeds(before, engines, clock)
    other = after, _feeds(after, engines, clock)
    rows: dict[str, ComparedEngine] = {}
    for name in SUPPLIED:
        with ExitStack() as opened:
            arms = []
            for bundle, feeds in (one, one, other):
                engine = engines(bundle.graph(name), bundle.graph_path(name))
                arms.append((opened.enter_context(engine), feeds[name]))
            once_ms, again_ms, other_ms = run_in_turn(arms, clock, ROUNDS_MIN)
        itself = paired_ratio(again_ms, once_ms).rounded()
        floor = width(itself) + math.log1p(RUN_TO_RUN)
        found = paired_ratio(other_ms, (once_ms + again_ms) / 2, len(SUPPLIED), floor)
        rows[name] = ComparedEngine(
            **judged(found).model_dump(),
            before=times_of(once_ms),
            after=times_of(other_ms),
            noise_floor=itself,
        )
        measured(name)
    return EngineComparison(verdict="; ".join(changes(rows)), engines=rows)


def engine_comparison_as_text(found: EngineComparison) -> str:
    """Format the comparison: a table, then the verdict."""
    return "\n".join(_lines(found))


def _feeds(bundle: Bundle, engines: EngineFactory, clock: Clock) -> dict[str, Feeds]:
    """Return the feeds of each graph in a run: graph -> input -> array as its spec says."""
    factory, timed = timed_engines(engines, clock)
    instruction = next(iter(bundle.manifest.instructions))
    with PolicyChain(bundle, instruction, factory, clock) as chain:
        chain.run(1)
        return {
            name: {key: array.copy() for key, array in engine.feeds.items()}
            for name, engine in timed.items()
        }


def _lines(found: EngineComparison) -> Iterator[str]:
    first = wide_enough(found.engines, 14)
    yield (
        f"{'engine, p50 ms':<{first}}{'before':>9}{'after':>9}{'ratio':>7}{'95 % interval':>16}"
        f"{'A/A':>7}  verdict"
    )
    for name, row in found.engines.items():
        low, high = row.ci95
        yield (
            f"{name:<{first}}{row.before.p50_ms:>9.3f}{row.after.p50_ms:>9.3f}"
            f"{row.ratio:>7.3f}{f'{low:.3f} to {high:.3f}':>16}"
            f"{row.noise_floor.ratio:>7.3f}  {row.verdict.replace('_', ' ')}"
        )
    yield found.verdict
