"""Two replays side by side, or a replay and what was recorded: where they were first not equal."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import Tensors
from runtime.mailbox import ChunkMsg

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one graph: the `number`-th of its stage, from 1."""

    stage: str
    number: int
    outputs: Tensors


@dataclass(frozen=True, slots=True)
class Divergence:
    """The first difference: in which output of which call.

    `t_s` is the time, since the run began, at which the condition or the chunk that the call was
    for was published; `max_abs_difference` is NaN where the shapes differ or one is not a number.
    """

    stage: str
    tensor: str
    call: int
    t_s: float
    frame_seq: int
    max_abs_difference: float


@dataclass(slots=True)
class StageDifference:
    """Over all calls of one graph."""

    calls: int = 0
    differing: int = 0
    max_abs_difference: float = 0.0


class Comparison:
    """Takes the calls of both sides, step by step."""

    def __init__(self) -> None:
        self.first: Divergence | None = None
        self.stages: dict[str, StageDifference] = {}

    def add(self, ours: Sequence[Call], theirs: Sequence[Call], t_s: float, frame_seq: int) -> None:
        """One step's calls, which are the same ones on both sides."""
        for one, other in zip(ours, theirs, strict=True):
            found = {
                name: difference
                for name, array in one.outputs.items()
                if (difference := max_abs_difference(array, other.outputs[name])) is not None
            }
            stage = self.stages.setdefault(one.stage, StageDifference())
            stage.calls += 1
            if not found:
                continue
            stage.differing += 1
            # np.max, unlike max, lets a NaN through.
            stage.max_abs_difference = float(np.max([stage.max_abs_difference, *found.values()]))
            if self.first is None:
                name, difference = next(iter(found.items()))
                self.first = Divergence(one.stage, name, one.number, t_s, frame_seq, difference)


def max_abs_difference(one: Array, other: Array) -> float | None:
    """None where both are equal to the bit; NaN where that can't be said in a number."""
    if one.shape != other.shape:
        return float("nan")
    if one.dtype == other.dtype and one.tobytes() == other.tobytes():
        return None
    wide, other_wide = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf, which the next line knows to be equal
        apart = np.abs(wide - other_wide)
    equal = (wide == other_wide) | (np.isnan(wide) & np.isnan(other_wide))
    return float(np.max(np.where(equal, 0.0, apart), initial=0.0))


def chunk_call(chunk: ChunkMsg, number: int) -> Call:
    """A chunk as what `denoise` gave, so that recorded chunks can be compared like calls."""
    times = np.array([chunk.t_capture_ns, chunk.step_ns])
    return Call("denoise", number, {"chunk_rad": chunk.target_rad, "times_ns": times})


def chunk_bytes(chunk: ChunkMsg) -> bytes:
    """All that the motors will follow: time of step 0, step time, targets; little endian."""
    times = np.array([chunk.epoch, chunk.t_capture_ns, chunk.step_ns], "<i8")
    return times.tobytes() + np.ascontiguousarray(chunk.target_rad, "<f8").tobytes()
