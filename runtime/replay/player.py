"""Runs System 1 and System 2 of one bundle on a virtual clock, step by step of a script."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.engines.base import Engine, EngineFactory, Tensors
from runtime.fit import check_fit
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Mailboxes
from runtime.policy.graphs import PolicyGraphs
from runtime.policy.system1 import System1
from runtime.policy.system2 import System2
from runtime.replay.compare import Call
from runtime.replay.script import Script, Step
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import FakeClock
from v2a.errors import BundleError, ConfigError
from v2a.spans import SpanRing


class TappedEngine(Engine):
    """An engine that appends each of its runs to `calls`."""

    def __init__(self, engine: Engine, stage: str, calls: list[Call]) -> None:
        self._engine, self._stage, self._calls = engine, stage, calls
        self._number = 0

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Run the engine; shapes and dtypes are those of the graph's spec."""
        outputs = self._engine.run(feeds)
        self._number += 1
        self._calls.append(Call(self._stage, self._number, outputs))
        return outputs

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class Player:
    """Makes the steps of `script` again, in their order, with the graphs of `bundle`.

    Raises BundleError if the bundle has another policy than the recording, and ConfigError if it
    does not fit the recorded robot.
    """

    def __init__(self, script: Script, bundle: Bundle, engines: EngineFactory) -> None:
        _check_same_policy(script, bundle)
        header = script.header
        config = header.config
        check_fit(config, bundle.manifest)
        self._script = script
        self._calls: list[Call] = []
        self._boxes = Mailboxes()
        self._clock = FakeClock(script.recording.t0_ns)
        self._conditions: dict[int, ConditionMsg] = {}  # the new ones, by the recorded seq
        self._drawn: dict[int, int] = {}  # epoch -> number of chunks whose noise was drawn
        self._graphs = PolicyGraphs(bundle, self._clock, self._tapped(engines))
        shared = self._graphs, self._boxes, config
        self._system2 = System2(*shared, SpanRing())
        self._system1 = System1(*shared, SpanRing(), header.seed)
        self._boxes.begin(script.steps[0].epoch, self._clock.now_ns())
        self._instruct()

    def play(self, step: Step, frame: FrameMsg) -> tuple[ChunkMsg | None, list[Call]]:
        """Make `step` again: the new chunk, if the step is one, and its calls in order.

        The calls of the first step begin with that of `instruction`. Raises ConfigError if nothing
        was made.
        """
        self._clock.sleep_until_ns(step.t_publish_ns)
        if step.epoch != self._boxes.epoch.number:
            self._boxes.begin(step.epoch, self._clock.now_ns())
            self._instruct()
        self._boxes.frame.put(frame, self._clock.now_ns())
        chunk = None
        if isinstance(step, ChunkMsg):
            chunk = self._chunk(step)
        else:
            self._condition(step)
        calls = list(self._calls)
        self._calls.clear()
        return chunk, calls

    def close(self) -> None:
        """Close all engines."""
        self._graphs.close()

    def _instruct(self) -> None:
        texts = self._script.instructions
        text = texts[min(self._boxes.epoch.number, len(texts) - 1)]
        self._graphs.set_instruction(text, SpanRing())

    def _condition(self, step: ConditionMsg) -> None:
        made = self._system2.compute(self._clock.now_ns())
        if made is None:
            raise _not_repeatable(f"condition {step.seq}", self._system2.counts)
        self._conditions[step.seq] = replace(made, seq=step.seq)

    def _chunk(self, step: ChunkMsg) -> ChunkMsg:
        now_ns = self._clock.now_ns()
        for older in [seq for seq in self._conditions if seq < step.condition_seq]:
            del self._conditions[older]
        self._boxes.condition.put(self._conditions[step.condition_seq], now_ns)
        self._boxes.state.put(self._script.states[step.state_seq], now_ns)
        count = self._script.counts[step.seq]
        self._system1.skip(count - self._drawn.get(step.epoch, 0))
        self._drawn[step.epoch] = count + 1
        made = self._system1.compute(now_ns)  # the ages were judged in the run
        if made is None:
            raise _not_repeatable(f"chunk {step.seq}", self._system1.counts)
        return made

    def _tapped(self, engines: EngineFactory) -> EngineFactory:
        def tapped(graph: GraphSpec, path: Path) -> Engine:
            return TappedEngine(engines(graph, path), graph.name, self._calls)

        return tapped


def _not_repeatable(what: str, counts: Mapping[str, int]) -> ConfigError:
    return ConfigError(
        f"{what} cannot be made again from its recorded inputs ({dict(counts)}); "
        "replay with the version of v2a that recorded it"
    )


def _check_same_policy(script: Script, bundle: Bundle) -> None:
    manifest, policy = bundle.manifest, script.header.policy
    camera, space = manifest.cameras[0], manifest.action_space
    _, frame = next(script.with_frames())
    steps, joints = script.first_chunk().target_rad.shape
    for what, offered, recorded in (
        ("policy", manifest.policy, policy),
        ("picture", (camera.height, camera.width, 3), frame.image.shape),
        ("chunk", (space.chunk_length, len(space.joints)), (steps, joints)),
    ):
        if offered != recorded:
            raise BundleError(
                f"{bundle.path}: its {what} is {offered}, the recording's is {recorded}; "
                f"give a bundle of the policy {policy}"
            )
