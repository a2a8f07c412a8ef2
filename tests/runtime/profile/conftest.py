"""Runs on a virtual clock, whose stages take what the test says, as recordings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.engines.base import Tensors
from runtime.engines.fake import FakeEngine
from runtime.mailbox import ChunkMsg, FrameMsg
from runtime.policy.graphs import PolicyGraphs
from runtime.profile.from_recording import profile_of_recording
from runtime.recording.header import Header
from tests.runtime.conftest import SIZE, J, K, T
from tests.runtime.recording.messages import HEADER
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import FakeClock
from v2a.spans import Tracer

PERIOD_NS = 200_000_000
CONDITION_EVERY = 4

# What each graph takes, ms. Real ones vary by a few per cent and remember it for a while.
USUAL_MS = {
    "instruction": 2.0,
    "vae_spatial": 3.0,
    "vae_motion": 9.0,
    "vdm_spatial": 12.0,
    "vdm_motion": 30.0,
    "condition": 4.0,
    "frame_encode": 2.0,
    "observe": 5.0,
    "denoise": 11.0,
}
SPREAD = 0.05
MEASURED = {"others_cores": 0.0, "yardstick_ms": 1.0}  # what only a live run measures


class Engine(FakeEngine):
    """Lets the virtual clock go on by what it takes: an AR(1) series around the usual, sometimes
    three times as much, and on call number `stalls[0]` by `stalls[1]` ms more."""

    memory = 0.9

    def __init__(
        self,
        graph: GraphSpec,
        clock: FakeClock,
        seed: int,
        factor: float,
        stalls: tuple[int, float] | None,
    ) -> None:
        super().__init__(graph)
        self._clock, self._factor, self._stalls = clock, factor, stalls
        self._rng = np.random.default_rng([seed, sum(graph.name.encode())])
        self._usual_ms = USUAL_MS[graph.name]
        self._now, self._calls = 0.0, 0

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        self._calls += 1
        fresh = self._rng.normal() * SPREAD * np.sqrt(1 - self.memory**2)
        self._now = self.memory * self._now + fresh
        outlier = 3.0 if self._rng.random() < 0.01 else 1.0
        took_ms = self._usual_ms * self._factor * np.exp(self._now) * outlier
        if self._stalls is not None and self._calls == self._stalls[0]:
            took_ms += self._stalls[1]
        self._clock.advance_ns(round(took_ms * 1e6))
        return super().run(feeds)


@dataclass
class Drained:
    """A recording as `profile_of_recording` reads it."""

    spans_: dict[str, npt.NDArray[np.int64]]
    chunks_: list[ChunkMsg]
    header: Header = HEADER
    t0_ns: int = 0

    def damaged(self) -> None:
        """Nothing of it is damaged."""

    def spans(self) -> dict[str, npt.NDArray[np.int64]]:
        return self.spans_

    def chunks(self) -> Iterator[ChunkMsg]:
        return iter(self.chunks_)

    def conditions(self) -> list[Any]:
        return []

    def safety(self) -> list[Any]:
        return []

    def summary(self) -> None:
        return None


class VirtualRun:
    """Both systems of the tiny policy, one after the other, for `chunks` chunks."""

    def __init__(
        self,
        bundle: Bundle,
        seed: int = 0,
        factors: Mapping[str, float] | None = None,
        stalls: Mapping[str, tuple[int, float]] | None = None,
        chunks: int = 300,
    ) -> None:
        self._clock, self._tracer = FakeClock(), Tracer()
        factors, stalls = factors or {}, stalls or {}

        def engine(graph: GraphSpec, path: object) -> Engine:
            name = graph.name
            return Engine(graph, self._clock, seed, factors.get(name, 1.0), stalls.get(name))

        self._graphs = PolicyGraphs(bundle, self._clock, engine)
        self._graphs.set_instruction("push the cube", self._tracer.ring("main"))
        clip = np.zeros((T, SIZE, SIZE, 3), np.uint8)
        made = []
        for seq in range(1, chunks + 1):
            start_ns = self._clock.now_ns()
            if seq % CONDITION_EVERY == 1:
                ring = self._tracer.ring("system2")
                condition = self._graphs.condition(clip, ring, seq)
            made.append(self._chunk(FrameMsg(seq, start_ns, 0, 0, 0, clip[-1], ()), condition))
            self._clock.sleep_until_ns(start_ns + PERIOD_NS)
        header = HEADER.model_copy(
            update={
                "stages": bundle.manifest.stages,
                "rates": {graph.name: graph.rate for graph in bundle.manifest.graphs},
            }
        )
        self.recording = Drained(self._tracer.drain(), made, header)
        found = profile_of_recording(self.recording)  # type: ignore[arg-type]
        self.profile = found.model_copy(update=MEASURED)

    def _chunk(self, frame: FrameMsg, condition: Tensors) -> ChunkMsg:
        still, noise = np.zeros(J), np.zeros((1, K, J), np.float32)
        target_rad = self._graphs.chunk(
            frame, still, still, condition, 0.1, noise, self._tracer.ring("system1")
        )
        now_ns = self._clock.now_ns()
        return ChunkMsg(
            frame.seq, frame.t_capture_ns, now_ns, frame.seq, 0, target_rad, 50_000_000, 10**8
        )


@pytest.fixture
def usual(bundle: Bundle) -> VirtualRun:
    return VirtualRun(bundle)
