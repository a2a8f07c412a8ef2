"""Finds the spans that belong together, from a camera image to the motors.

A span's `arg` is the seq of the message that it worked on (docs/tracing.md). Chunks and conditions
record the messages that they were computed from. A flow is the path of one message through spans.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from runtime.mailbox import ChunkMsg, ConditionMsg
from v2a.names import SENSING, SYSTEM1, Rate

PLAYING: Final = ("tick", "bus_write")


class Key(NamedTuple):
    """Identifies a span: the first one of this stage with this seq.

    `thread` is set only for `publish`, which runs in several threads.
    """

    stage: str
    seq: int
    thread: str = ""


def key_of(thread: str, stage: str, seq: int) -> Key:
    """Return the key of a span."""
    return Key(stage, seq, thread if stage == "publish" else "")


def flows(
    chunks: Iterable[ChunkMsg], conditions: Iterable[ConditionMsg], rates: Mapping[str, Rate]
) -> dict[Key, list[int]]:
    """Return for each span the numbers of the flows that lead through it.

    `rates` has the rate of each graph of the run, in their order.
    """
    found: dict[Key, list[int]] = defaultdict(list)
    for number, path in enumerate(_paths(chunks, conditions, rates), start=1):
        for key in path:
            found[key].append(number)
    return found


def _paths(
    chunks: Iterable[ChunkMsg], conditions: Iterable[ConditionMsg], rates: Mapping[str, Rate]
) -> Iterator[list[Key]]:
    """Yield three kinds of path: image to condition, image to ticks, condition to chunk."""
    system1 = [graph for graph, rate in rates.items() if rate in SYSTEM1]
    system2 = [graph for graph, rate in rates.items() if rate == "system2"]
    # A graph of rate `frame` runs once per picture, so it cannot read a condition.
    first_readers = [graph for graph in system1 if rates[graph] != "frame"][:1]
    for condition in conditions:
        yield [
            *_picture(condition.parent_seq),
            *(Key(stage, condition.parent_seq) for stage in system2),
            Key("publish", condition.seq, "system2"),
        ]
    for chunk in chunks:
        yield [
            *_picture(chunk.parent_seq),
            *(Key(stage, chunk.parent_seq) for stage in system1),
            Key("publish", chunk.seq, "system1"),
            *(Key(stage, chunk.seq) for stage in PLAYING),
        ]
        yield [
            Key("publish", chunk.condition_seq, "system2"),
            *(Key(stage, chunk.parent_seq) for stage in first_readers),
        ]


def _picture(seq: int) -> Iterator[Key]:
    yield from (Key(stage, seq) for stage in SENSING)
    yield Key("publish", seq, "camera")
