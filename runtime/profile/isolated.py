"""Measures each engine while nothing else runs, and the machine's noise floor.

First the policy's graphs run as a chain, on a real instruction and random pictures. So each engine
gets the same kind of feeds as in a run. Then each engine is timed against itself, in turn as `a`
and as `b` (A/A). The distance of their ratio from 1 is the noise floor: a smaller difference
between two engines is not measurable here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runtime.engines.base import Engine, EngineFactory, Tensors
from runtime.mailbox import FrameMsg
from runtime.policy.graphs import SUPPLIED, PolicyGraphs
from runtime.profile.statistics import Series, paired_ratio, times_of
from runtime.profile_model import Ratio
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import Clock
from v2a.measured import Times
from v2a.spans import SpanRing

CHAINS: Final = 12  # after the first chain, which allocates
GRAPH_S: Final = 0.8  # duration of each graph's A/A
FEWEST, MOST = 16, 400  # rounds
WARM_UPS: Final = 3

Feeds = Mapping[str, npt.NDArray[Any]]  # input -> array, dtype and shape as the graph's spec says


@dataclass(slots=True)
class TimedEngine(Engine):
    """An engine that keeps the feeds of its last run and the time of each run."""

    engine: Engine
    clock: Clock
    feeds: Feeds = field(default_factory=dict)
    took_ns: list[int] = field(default_factory=list)

    def run(self, feeds: Feeds) -> Tensors:
        """Run the engine on arrays with shape and dtype as in its spec. Keep feeds and time."""
        self.feeds = feeds
        start_ns = self.clock.now_ns()
        outputs = self.engine.run(feeds)
        self.took_ns.append(self.clock.now_ns() - start_ns)
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self.engine.close()


@dataclass(frozen=True, slots=True)
class IsolatedEngine:
    """One engine while nothing else runs.

    `overhead_ms` is the median time that the stage takes around its engine.
    """

    times: Times
    noise_floor: Ratio
    overhead_ms: float
    feeds: Feeds


def measure_isolated(
    bundle: Bundle,
    instruction: str,
    engines: EngineFactory,
    clock: Clock,
    measured: Callable[[str], object] = lambda graph: None,
) -> dict[str, IsolatedEngine]:
    """Time each engine of `bundle` alone.

    Returns graph -> times, in the order of running. Calls `measured` with each graph that is done.
    """
    factory, timed = timed_engines(engines, clock)
    found: dict[str, IsolatedEngine] = {}
    with PolicyChain(bundle, instruction, factory, clock) as chain:
        spans_ms = chain.run(CHAINS)
        for name in SUPPLIED:
            engine = timed[name]
            inside_ms = np.array(engine.took_ns[-len(spans_ms[name]) :]) / 1e6
            overhead_ms = float(np.median(spans_ms[name] - inside_ms))
            a, b = run_in_turn([(engine.engine, engine.feeds)] * 2, clock)
            both = np.stack([a, b], axis=1).reshape(-1)  # in order of time
            floor = paired_ratio(b, a).rounded()
            found[name] = IsolatedEngine(times_of(both), floor, overhead_ms, engine.feeds)
            measured(name)
    return found


def timed_engines(
    engines: EngineFactory, clock: Clock
) -> tuple[EngineFactory, dict[str, TimedEngine]]:
    """Return a factory of `TimedEngine`s, and the engines that it has made so far, by graph."""
    timed: dict[str, TimedEngine] = {}

    def make(graph: GraphSpec, path: Path) -> TimedEngine:
        timed[graph.name] = TimedEngine(engines(graph, path), clock)
        return timed[graph.name]

    return make, timed


class PolicyChain:
    """Runs all graphs of a policy once, one after the other, on a random clip and joints at rest.

    `with` closes the engines.
    """

    def __init__(
        self, bundle: Bundle, instruction: str, engines: EngineFactory, clock: Clock
    ) -> None:
        self._graphs = PolicyGraphs(bundle, clock, engines)
        self._ring = SpanRing()
        self._stages = bundle.manifest.stages
        self._instruction = instruction
        manifest, rng = bundle.manifest, np.random.default_rng(0)
        camera, space = manifest.cameras[0], manifest.action_space
        shape = (camera.history, camera.height, camera.width, 3)
        self._clip = rng.integers(0, 256, shape, dtype=np.uint8)
        self._rest_rad = np.array([(joint.lower + joint.upper) / 2 for joint in space.joints])
        self._noise = rng.standard_normal(
            (1, space.chunk_length, len(space.joints)), dtype=np.float32
        )

    def run(self, times: int) -> dict[str, Series]:
        """Run the chain `times + 1` times; graph -> the time of its stage in ms, float64 [times].

        The first chain is a warm-up. The instruction has one time, because the same text again
        costs nothing.
        """
        for seq in range(times + 1):
            self._chain(seq)
        rows = self._ring.drain()
        return {
            self._stages[index]: (rows[rows[:, 0] == index][-times:] @ [0, -1, 1, 0]) / 1e6
            for index in np.unique(rows[:, 0])
        }

    def _chain(self, seq: int) -> None:
        graphs, ring = self._graphs, self._ring
        graphs.set_instruction(self._instruction, ring)
        condition = graphs.condition(self._clip, ring)
        frame = FrameMsg(seq, 0, 0, 0, 0, self._clip[-1], ())
        graphs.chunk(frame, self._rest_rad, self._rest_rad, condition, 0.0, self._noise, ring)

    def __enter__(self) -> PolicyChain:
        return self

    def __exit__(self, *_: object) -> None:
        self._graphs.close()


def run_in_turn(
    arms: Sequence[tuple[Engine, Feeds]], clock: Clock, fewest: int = FEWEST
) -> list[Series]:
    """Time the engines in turn, at least `fewest` rounds; each arm's times in ms, float64 [n].

    Each round starts with another arm, so that no arm always follows the same other one.
    """
    for _ in range(WARM_UPS):
        once_ns = [_time_ns(engine, feeds, clock) for engine, feeds in arms]
    rounds = int(np.clip(GRAPH_S * 1e9 / max(sum(once_ns), 1), fewest, MOST))
    taken_ms = np.empty((len(arms), rounds))
    for number in range(rounds):
        for place in range(len(arms)):
            arm = (number + place) % len(arms)
            taken_ms[arm, number] = _time_ns(*arms[arm], clock) / 1e6
    return list(taken_ms)


def _time_ns(engine: Engine, feeds: Feeds, clock: Clock) -> int:
    start_ns = clock.now_ns()
    engine.run(feeds)
    return clock.now_ns() - start_ns
