"""A whole recording again: the digest of its chunks, and where they part from something else's."""

from __future__ import annotations

import hashlib
from contextlib import ExitStack, closing
from dataclasses import asdict
from typing import Any

from runtime.engines.base import EngineFactory, load
from runtime.mailbox import ChunkMsg, FrameMsg
from runtime.replay.compare import Comparison, chunk_bytes, chunk_call
from runtime.replay.player import Player
from runtime.replay.script import Script, Step
from v2a.bundle import Bundle


class Replay:
    """`bundle` on what was recorded; beside it `against`, where that is given. `with` closes it.

    Both are shown the recorded joint states, whatever their own chunks would have done to the
    robot. Each step is compared at once, so memory does not grow with the recording. Raises what
    `Player` raises.
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
        """The next of `Script.with_frames`."""
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

    def result(self) -> dict[str, Any]:
        """`digest` is the SHA-256 over all chunks, `other_digest` that of the other side: the
        second bundle's chunks, or without one the recorded ones."""
        first = self._comparison.first
        return {
            "chunks": self._chunks,
            "conditions": len(self._script.steps) - self._chunks,
            "left_out": dict(self._script.left_out),
            "digest": self._digest.hexdigest(),
            "other_digest": self._other_digest.hexdigest(),
            "first_divergence": first and asdict(first),
            "differences": {
                stage: asdict(found) for stage, found in self._comparison.stages.items()
            },
        }

    def __enter__(self) -> Replay:
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.close()
