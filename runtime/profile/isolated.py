"""Engines by themselves, before anything else runs: the noise floor, and what each costs alone.

Each engine is run on what it gets in a run: the policy's graphs are chained once, from a real
instruction and random pictures, and every engine's feeds are noted. Then each is timed twice in
turn, the same engine as `a` and as `b` (A/A): how far their ratio is from 1 is what this machine
can't tell apart.
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
from runtime.profile.statistics import Interval, Series, paired_ratio, quantiles_ms
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import Clock
from v2a.names import STAGES
from v2a.spans import SpanRing

CHAINS: Final = 12  # after the first, which allocates
GRAPH_S: Final = 0.8  # for each graph's A/A
FEWEST, MOST = 16, 400  # rounds
WARM_UPS: Final = 3

Feeds = Mapping[str, npt.NDArray[Any]]


@dataclass(slots=True)
class Noted(Engine):
    """An engine that keeps its last feeds and the time of each run."""

    engine: Engine
    clock: Clock
    feeds: Feeds = field(default_factory=dict)
    took_ns: list[int] = field(default_factory=list)

    def run(self, feeds: Feeds) -> Tensors:
        self.feeds = feeds
        start_ns = self.clock.now_ns()
        outputs = self.engine.run(feeds)
        self.took_ns.append(self.clock.now_ns() - start_ns)
        return outputs

    def close(self) -> None:
        self.engine.close()


@dataclass(frozen=True, slots=True)
class Alone:
    """Of one graph. `overhead_ms` is what the stage takes around its engine, the median."""

    times_ms: Series
    floor: Interval
    overhead_ms: float
    feeds: Feeds

    def as_json(self) -> dict[str, Any]:
        return {"alone": quantiles_ms(self.times_ms), "overhead_ms": self.overhead_ms}


def engines_alone(
    bundle: Bundle,
    instruction: str,
    engines: EngineFactory,
    clock: Clock,
    measured: Callable[[str], object] = lambda graph: None,
) -> dict[str, Alone]:
    """Graph -> what was found, in the order in which graphs run; `measured` hears of each."""
    note, noted = noting(engines, clock)
    found: dict[str, Alone] = {}
    with PolicyChain(bundle, instruction, note, clock) as chain:
        spans_ms = chain.run(CHAINS)
        for name in SUPPLIED:
            inside_ms = np.array(noted[name].took_ns[-len(spans_ms[name]) :]) / 1e6
            overhead_ms = float(np.median(spans_ms[name] - inside_ms))
            a, b = in_turn([(noted[name].engine, noted[name].feeds)] * 2, clock)
            both = np.stack([a, b], axis=1).reshape(-1)  # in order of time
            found[name] = Alone(both, paired_ratio(b, a), overhead_ms, noted[name].feeds)
            measured(name)
    return found


def noting(engines: EngineFactory, clock: Clock) -> tuple[EngineFactory, dict[str, Noted]]:
    """`engines`, and by graph those that it has made."""
    noted: dict[str, Noted] = {}

    def note(graph: GraphSpec, path: Path) -> Noted:
        noted[graph.name] = Noted(engines(graph, path), clock)
        return noted[graph.name]

    return note, noted


class PolicyChain:
    """All graphs once, one after the other, on a made-up clip and joints at rest."""

    def __init__(
        self, bundle: Bundle, instruction: str, engines: EngineFactory, clock: Clock
    ) -> None:
        self._graphs = PolicyGraphs(bundle, clock, engines)
        self._ring = SpanRing()
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
        """Graph -> the time of its stage in each of `times` chains, ms (that of the instruction
        once: the same text again costs nothing). One more goes before."""
        for seq in range(times + 1):
            self._chain(seq)
        rows = self._ring.drain()
        return {
            STAGES[index]: (rows[rows[:, 0] == index][-times:] @ [0, -1, 1, 0]) / 1e6
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


def in_turn(
    arms: Sequence[tuple[Engine, Feeds]], clock: Clock, fewest: int = FEWEST
) -> list[Series]:
    """ms of each run of each arm, the arms in turn, `fewest` rounds at least. Each round begins
    with another, so that none is always the one that comes after the same other."""
    for _ in range(WARM_UPS):
        once_ns = [_time_ns(engine, feeds, clock) for engine, feeds in arms]
    rounds = int(np.clip(GRAPH_S * 1e9 / max(sum(once_ns), 1), fewest, MOST))
    taken = np.empty((len(arms), rounds))
    for number in range(rounds):
        for place in range(len(arms)):
            arm = (number + place) % len(arms)
            taken[arm, number] = _time_ns(*arms[arm], clock) / 1e6
    return list(taken)


def _time_ns(engine: Engine, feeds: Feeds, clock: Clock) -> int:
    start_ns = clock.now_ns()
    engine.run(feeds)
    return clock.now_ns() - start_ns
