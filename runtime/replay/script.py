"""Reads from a recording what System 1 and System 2 did, in order, and their inputs.

Each recorded condition names its frame. Each chunk names its frame, its condition and its joint
state. The sampler's noise follows from the seed, the epoch and the number of chunks. A step whose
inputs the recorder lost is left out and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, StateMsg
from runtime.recording.header import Header
from runtime.recording.reader import Recording
from v2a.errors import ConfigError

Step = ConditionMsg | ChunkMsg
"""A recorded step; a condition has no tensors in the recording."""

S = TypeVar("S", ConditionMsg, ChunkMsg)
Needed = Mapping[str, Callable[[S], bool]]
"""Name of an input of a step -> whether the recording has it."""


@dataclass(frozen=True, slots=True)
class Script:
    """The steps in the order in which their results were published, epoch by epoch."""

    recording: Recording
    steps: tuple[Step, ...]
    states: Mapping[int, StateMsg]
    instructions: Sequence[str]  # one for each epoch; the last one is valid for later epochs too
    counts: Mapping[int, int]  # seq of a chunk -> number of earlier chunks in its epoch
    left_out: Mapping[str, int]  # reason -> number of steps that cannot be made again

    @property
    def header(self) -> Header:
        """The header of the recording."""
        return self.recording.header

    def first_chunk(self) -> ChunkMsg:
        """The first chunk; `read_script` makes sure that there is one."""
        return next(step for step in self.steps if isinstance(step, ChunkMsg))

    def with_frames(self) -> Iterator[tuple[Step, FrameMsg]]:
        """Each step and its frame.

        Reads the recording step by step, and keeps a frame only while a later step needs it.
        """
        asked = Counter(step.parent_seq for step in self.steps)
        kept: dict[int, FrameMsg] = {}
        frames = self.recording.frames()
        for step in self.steps:
            while step.parent_seq not in kept:
                frame = next(frames)
                if asked[frame.seq]:
                    kept[frame.seq] = frame
            yield step, kept[step.parent_seq]
            asked[step.parent_seq] -= 1
            if not asked[step.parent_seq]:
                del kept[step.parent_seq]


def read_script(recording: Recording) -> Script:
    """Read the script of a recording. Raises ConfigError if no chunk can be made again."""
    recorded = list(recording.chunks())
    asked = {chunk.state_seq for chunk in recorded}
    states = {state.seq: state for state in recording.states() if state.seq in asked}
    frames = {frame.seq for frame in recording.frame_heads()}
    clips = set(_complete_clips(recording.frame_heads()))
    left_out: Counter[str] = Counter()
    of_condition: Needed[ConditionMsg] = {
        "pictures": lambda condition: condition.parent_seq in clips
    }
    conditions = list(_complete("conditions", recording.conditions(), of_condition, left_out))
    made = {condition.seq for condition in conditions}
    of_chunk: Needed[ChunkMsg] = {
        "picture": lambda chunk: chunk.parent_seq in frames,
        "condition": lambda chunk: chunk.condition_seq in made,
        "joint state": lambda chunk: chunk.state_seq in states,
    }
    chunks = list(_complete("chunks", recorded, of_chunk, left_out))
    if not chunks:
        why = ", ".join(f"{n} {what}" for what, n in left_out.items()) or "it has no chunk"
        raise ConfigError(f"{recording.path}: nothing to replay: {why}; record a longer run")
    # The sort is stable: a condition comes before the chunks of the same instant.
    steps: list[Step] = [*conditions, *chunks]
    steps.sort(key=lambda step: (step.epoch, step.t_publish_ns))
    texts = recording.instructions()
    return Script(recording, tuple(steps), states, texts, _counts(recorded), dict(left_out))


def _complete(
    what: str, steps: Iterable[S], needed: Needed[S], left_out: Counter[str]
) -> Iterator[S]:
    """The steps that have all `needed` inputs; counts the others in `left_out`."""
    for step in steps:
        lacking = next((name for name, there in needed.items() if not there(step)), None)
        if lacking is None:
            yield step
        else:
            left_out[f"{what} without their {lacking}"] += 1


def _complete_clips(frames: Iterable[FrameMsg]) -> Iterator[int]:
    """The seqs of the frames whose history is in the recording."""
    recorded: set[int] = set()
    for frame in frames:
        recorded.add(frame.t_capture_ns)
        if all(t_ns in recorded for t_ns, _ in frame.history):
            yield frame.seq


def _counts(chunks: Iterable[ChunkMsg]) -> dict[int, int]:
    """Seq of a chunk -> number of earlier chunks in its epoch, lost ones included."""
    first_seq: dict[int, int] = {}  # by epoch
    return {chunk.seq: chunk.seq - first_seq.setdefault(chunk.epoch, chunk.seq) for chunk in chunks}
