"""Replays a whole recording: the digest of its chunks, and where they differ from others."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing

from runtime.engines.base import EngineFactory, load
from runtime.mailbox import ChunkMsg, FrameMsg
from runtime.replay.compare import Comparison, chunk_bytes, chunk_call
from runtime.replay.player import Player
from runtime.replay.result import ReplayResult
from runtime.replay.script import Script, Step
from v2a.bundle import Bundle


class Replay:
    """Replays a recording with `bundle`, and with `against` if that is given.

    Both bundles see the recorded joint states, whatever their own chunks would have done to the
    robot. Each step is compared at once, so memory does not grow with the recording. `with` closes
    the engines. Raises the errors of `Player`.
    """

    def __init__(
        self,
        script: Script,
        bundle: Bundle,
        against: Bundle | None = None,
        engines: EngineFactory = load,
    ) -> None:
        self._script = script
        self._comparison = Comparison()
        self._digest, self._other_digest = hashlib.sha256(), hashlib.sha256()
        self._chunks = 0
        bundles = [bundle] if against is None else [bundle, against]
        with ExitStack() as opened:
            self._players = [
                opened.enter_context(closing(Player(script, each, engines))) for each in bundles
            ]
            self._closing = opened.pop_all()

    def play(self, step: Step, frame: FrameMsg) -> None:
        """Replay the next step of `Script.with_frames`."""
        t_s = (step.t_publish_ns - self._script.recording.t0_ns) / 1e9
        (chunk, calls), *others = [player.play(step, frame) for player in self._players]
        if isinstance(step, ChunkMsg) and chunk is not None:
            self._chunks += 1
            other = others[0][0] if others else step
            assert other is not None
            self._digest.update(chunk_bytes(chunk))
            self._other_digest.update(chunk_bytes(other))
            if not others:
                ours, theirs = (chunk_call(each, self._chunks) for each in (chunk, step))
                self._comparison.add([ours], [theirs], t_s, step.parent_seq)
        if others:
            self._comparison.add(calls, others[0][1], t_s, step.parent_seq)

    def result(self) -> ReplayResult:
        """What was found in the steps so far."""
        return ReplayResult(
            chunks=self._chunks,
            conditions=len(self._script.steps) - self._chunks,
            left_out=dict(self._script.left_out),
            digest=self._digest.hexdigest(),
            other_digest=self._other_digest.hexdigest(),
            first_divergence=self._comparison.first,
            differences=dict(self._comparison.stages),
        )

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
