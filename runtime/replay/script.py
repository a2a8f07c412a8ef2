"""What System 1 and System 2 did in a recorded run, in order, and what they were shown.

Each recorded condition names its frame, and each chunk its frame, its condition and its joint
state; the sampler's noise follows from the seed, the epoch and the count of chunks. What lacks one
of these, in a recording that lost messages, is left out and counted.
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
"""As recorded: a condition is without its tensors."""

S = TypeVar("S", ConditionMsg, ChunkMsg)
Needed = Mapping[str, Callable[[S], bool]]
"""What a step is made from -> whether it is in the recording."""


@dataclass(frozen=True, slots=True)
class Script:
    """The steps in the order in which their results were published, epoch by epoch."""

    recording: Recording
    steps: tuple[Step, ...]
    states: Mapping[int, StateMsg]
    instructions: Sequence[str]  # of each epoch, the last also of those after it
    counts: Mapping[int, int]  # seq of a chunk -> how many of its epoch were made before it
    left_out: Mapping[str, int]  # why -> how many steps can't be made again

    @property
    def header(self) -> Header:
        return self.recording.header

    def first_chunk(self) -> ChunkMsg:
        return next(step for step in self.steps if isinstance(step, ChunkMsg))

    def with_frames(self) -> Iterator[tuple[Step, FrameMsg]]:
        """Each step and the frame that it was made from.

        Reads the recording as it goes, and keeps a frame only while a later step asks for it.
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
    """Raises ConfigError when no chunk of the recording can be made again."""
    recorded = list(recording.chunks())
    asked = {chunk.state_seq for chunk in recorded}
    states = {state.seq: state for state in recording.states() if state.seq in asked}
    frames = {frame.seq for frame in recording.frame_heads()}
    clips = set(_whole(recording.frame_heads()))
    left_out: Counter[str] = Counter()
    of_condition: Needed[ConditionMsg] = {
        "pictures": lambda condition: condition.parent_seq in clips
    }
    conditions = list(_sound("conditions", recording.conditions(), of_condition, left_out))
    made = {condition.seq for condition in conditions}
    of_chunk: Needed[ChunkMsg] = {
        "picture": lambda chunk: chunk.parent_seq in frames,
        "condition": lambda chunk: chunk.condition_seq in made,
        "joint state": lambda chunk: chunk.state_seq in states,
    }
    chunks = list(_sound("chunks", recorded, of_chunk, left_out))
    if not chunks:
        why = ", ".join(f"{n} {what}" for what, n in left_out.items()) or "it has no chunk"
        raise ConfigError(f"{recording.path}: nothing to replay: {why}; record a longer run")
    # A condition before the chunks of the same instant: it is there for them.
    steps: list[Step] = [*conditions, *chunks]
    steps.sort(key=lambda step: (step.epoch, step.t_publish_ns))
    texts = recording.instructions()
    return Script(recording, tuple(steps), states, texts, _counts(recorded), dict(left_out))


def _sound(what: str, steps: Iterable[S], needed: Needed[S], left_out: Counter[str]) -> Iterator[S]:
    """The steps that have all that is `needed`; counts the others."""
    for step in steps:
        lacking = next((name for name, there in needed.items() if not there(step)), None)
        if lacking is None:
            yield step
        else:
            left_out[f"{what} without their {lacking}"] += 1


def _whole(frames: Iterable[FrameMsg]) -> Iterator[int]:
    """The seqs of the frames of whose history no picture was lost."""
    recorded: set[int] = set()
    for frame in frames:
        recorded.add(frame.t_capture_ns)
        if all(t_ns in recorded for t_ns, _ in frame.history):
            yield frame.seq


def _counts(chunks: Iterable[ChunkMsg]) -> dict[int, int]:
    """What System 1 made and nobody recorded counts, too: its seq is missing."""
    first_seq: dict[int, int] = {}  # by epoch
    return {chunk.seq: chunk.seq - first_seq.setdefault(chunk.epoch, chunk.seq) for chunk in chunks}
