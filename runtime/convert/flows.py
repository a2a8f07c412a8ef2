"""Which spans belong together, from a picture to the motors.

A span's `arg` is the seq of what it was about (docs/tracing.md); the chunks and the conditions say
which of those was made from which. A flow is the path of one of them through its spans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from runtime.mailbox import ChunkMsg, ConditionMsg

SENSING: Final = ("capture", "preprocess")
SYSTEM1: Final = ("frame_encode", "observe", "denoise")
SYSTEM2: Final = ("vae_spatial", "vae_motion", "vdm_spatial", "vdm_motion", "condition")
PLAYING: Final = ("tick", "bus_write")


class Key(NamedTuple):
    """One span: the first of this stage about this seq. Only `publish` is of several threads, and
    names the one."""

    stage: str
    seq: int
    thread: str = ""


def key_of(thread: str, stage: str, seq: int) -> Key:
    return Key(stage, seq, thread if stage == "publish" else "")


def flows(chunks: Iterable[ChunkMsg], conditions: Iterable[ConditionMsg]) -> dict[Key, list[int]]:
    """The numbers of the flows that lead through each span."""
    found: dict[Key, list[int]] = defaultdict(list)
    for number, path in enumerate(_paths(chunks, conditions), start=1):
        for key in path:
            found[key].append(number)
    return found


def _paths(chunks: Iterable[ChunkMsg], conditions: Iterable[ConditionMsg]) -> Iterator[list[Key]]:
    """A picture to its condition; a picture to the ticks; a condition to a chunk that used it."""
    for condition in conditions:
        yield [
            *_picture(condition.parent_seq),
            *(Key(stage, condition.parent_seq) for stage in SYSTEM2),
            Key("publish", condition.seq, "system2"),
        ]
    for chunk in chunks:
        yield [
            *_picture(chunk.parent_seq),
            *(Key(stage, chunk.parent_seq) for stage in SYSTEM1),
            Key("publish", chunk.seq, "system1"),
            *(Key(stage, chunk.seq) for stage in PLAYING),
        ]
        yield [
            Key("publish", chunk.condition_seq, "system2"),
            Key("observe", chunk.parent_seq),
        ]


def _picture(seq: int) -> Iterator[Key]:
    yield from (Key(stage, seq) for stage in SENSING)
    yield Key("publish", seq, "camera")
