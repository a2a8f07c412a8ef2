"""Compares two replays, or a replay with its recording, call by call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.engines.base import Tensors
from runtime.mailbox import ChunkMsg
from runtime.replay.result import Divergence, StageDifference

Array = npt.NDArray[Any]  # any shape and dtype


@dataclass(frozen=True, slots=True)
class Call:
    """One run of one graph. `number` counts the runs of its stage from 1."""

    stage: str
    number: int
    outputs: Tensors


class Comparison:
    """Collects the differences between two sides, step by step."""

    def __init__(self) -> None:
        self.first: Divergence | None = None
        self.stages: dict[str, StageDifference] = {}

    def add(self, ours: Sequence[Call], theirs: Sequence[Call], t_s: float, frame_seq: int) -> None:
        """Compare the calls of one step. Both sides must make the same calls in the same order."""
        for one, other in zip(ours, theirs, strict=True):
            found = {
                name: difference
                for name, array in one.outputs.items()
                if (difference := max_abs_difference(array, other.outputs[name])) is not None
            }
            before = self.stages.get(one.stage, StageDifference())
            # np.max, unlike max, lets a NaN through.
            largest = float(np.max([before.max_abs_difference, *found.values()]))
            self.stages[one.stage] = StageDifference(
                calls=before.calls + 1,
                differing=before.differing + bool(found),
                max_abs_difference=largest,
            )
            if found and self.first is None:
                name, difference = next(iter(found.items()))
                self.first = Divergence(
                    stage=one.stage,
                    tensor=name,
                    call=one.number,
                    t_s=t_s,
                    frame_seq=frame_seq,
                    max_abs_difference=difference,
                )


def max_abs_difference(one: Array, other: Array) -> float | None:
    """The largest absolute difference of two arrays.

    None if they are equal to the bit; NaN if their shapes differ or a value is not a number.
    """
    if one.shape != other.shape:
        return float("nan")
    if one.dtype == other.dtype and one.tobytes() == other.tobytes():
        return None
    wide, other_wide = one.astype(np.float64), other.astype(np.float64)
    with np.errstate(invalid="ignore"):  # inf - inf is NaN; the next line handles it
        apart = np.abs(wide - other_wide)
    equal = (wide == other_wide) | (np.isnan(wide) & np.isnan(other_wide))
    return float(np.max(np.where(equal, 0.0, apart), initial=0.0))


def chunk_call(chunk: ChunkMsg, number: int) -> Call:
    """A chunk as a call of `denoise`, so that recorded chunks can be compared like calls.

    Its outputs are `chunk_rad`, float64 [steps, joints] in rad, and `times_ns`, int64 [2].
    """
    times = np.array([chunk.t_capture_ns, chunk.step_ns])
    return Call("denoise", number, {"chunk_rad": chunk.target_rad, "times_ns": times})


def chunk_bytes(chunk: ChunkMsg) -> bytes:
    """The bytes that a digest covers: epoch, time of step 0 and step time in ns, targets in rad.

    int64 [3], then float64 [steps, joints], little endian.
    """
    times = np.array([chunk.epoch, chunk.t_capture_ns, chunk.step_ns], "<i8")
    return times.tobytes() + np.ascontiguousarray(chunk.target_rad, "<f8").tobytes()
