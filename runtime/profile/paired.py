"""The engines of two bundles in turn: is one quicker?

Two profiles are minutes apart, and on a machine that others use, too, the same engine may take
twice as long by then. In turn, call by call, what moves the machine moves both. The first bundle's
engine is loaded twice and takes part twice: how far it is from itself is the noise floor.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Final

from runtime.engines.base import EngineFactory
from runtime.policy.graphs import SUPPLIED
from runtime.profile.compare import RUN_TO_RUN, named, verdict, widest
from runtime.profile.isolated import Feeds, PolicyChain, in_turn, noting
from runtime.profile.statistics import paired_ratio, quantiles_ms
from v2a.bundle import Bundle
from v2a.clock import Clock

ROUNDS_MIN: Final = 48  # with fewer, a fifth more is often not told from noise


def compare_engines(
    before: Bundle,
    after: Bundle,
    engines: EngineFactory,
    clock: Clock,
    measured: Callable[[str], object] = lambda graph: None,
) -> dict[str, Any]:
    """Per graph the ratio of `after` to `before`, its interval, a verdict; `measured` hears of
    each. Raises BundleError for a bundle that has not all graphs of a policy."""
    one = before, _feeds(before, engines, clock)
    other = after, _feeds(after, engines, clock)
    rows: dict[str, dict[str, Any]] = {}
    for name in SUPPLIED:
        with ExitStack() as opened:
            arms = []
            for bundle, feeds in (one, one, other):
                engine = engines(bundle.graph(name), bundle.graph_path(name))
                arms.append((opened.enter_context(engine), feeds[name]))
            once_ms, again_ms, other_ms = in_turn(arms, clock, ROUNDS_MIN)
        itself = paired_ratio(again_ms, once_ms).as_json()
        floor = widest(itself) + math.log1p(RUN_TO_RUN)
        found = paired_ratio(other_ms, (once_ms + again_ms) / 2, len(SUPPLIED), floor)
        rows[name] = {
            "before": quantiles_ms(once_ms),
            "after": quantiles_ms(other_ms),
            "noise_floor": itself,
            **found.as_json(),
            "verdict": verdict(found),
        }
        measured(name)
    return {"verdict": "; ".join(named(rows)), "engines": rows}


def _feeds(bundle: Bundle, engines: EngineFactory, clock: Clock) -> dict[str, Feeds]:
    """What each graph of `bundle` gets in a run, of its own chain."""
    note, noted = noting(engines, clock)
    instruction = next(iter(bundle.manifest.instructions))
    with PolicyChain(bundle, instruction, note, clock) as chain:
        chain.run(1)
        return {
            name: {key: array.copy() for key, array in engine.feeds.items()}
            for name, engine in noted.items()
        }


def as_text(found: dict[str, Any]) -> str:
    """A table and the sentence."""
    return "\n".join(_lines(found))


def _lines(found: dict[str, Any]) -> Iterator[str]:
    yield (
        f"{'engine, p50 ms':<16}{'before':>9}{'after':>9}{'ratio':>8}{'95 % interval':>18}"
        f"{'A/A':>8}  verdict"
    )
    for name, row in found["engines"].items():
        low, high = row["ci95"]
        yield (
            f"{name:<16}{row['before']['p50_ms']:>9.3f}{row['after']['p50_ms']:>9.3f}"
            f"{row['ratio']:>8.3f}{f'{low:.3f} to {high:.3f}':>18}"
            f"{row['noise_floor']['ratio']:>8.3f}  {row['verdict'].replace('_', ' ')}"
        )
    yield found["verdict"]
