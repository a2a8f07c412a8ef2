"""Reads from a recording what the profile and the page need: spans, stalls, ticks, ages."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import ChunkMsg, ConditionMsg
from runtime.report.stalls import Rows, Stall, Ticks, compare_with_grid, find_stalls, ticks_of
from runtime.span_ages import ages_of_spans

Points = npt.NDArray[np.float64]  # [n, 2]: time since the start in s, age in ms


class RecordedHeader(Protocol):
    """The part of `runtime.recording.header.Header` that is read here."""

    @property
    def config(self) -> RunConfig: ...

    @property
    def stages(self) -> tuple[str, ...]: ...


class Recorded(Protocol):
    """The part of `runtime.recording.reader.Recording` that is read here."""

    @property
    def header(self) -> RecordedHeader: ...

    @property
    def t0_ns(self) -> int: ...

    def spans(self) -> Mapping[str, Rows]:
        """Return thread -> spans, int64 [n, 4]: stage index, start ns, end ns, arg."""
        ...

    def chunks(self) -> Iterable[ChunkMsg]: ...

    def conditions(self) -> Iterable[ConditionMsg]: ...

    def safety(self) -> Iterable[Any]: ...


@dataclass(frozen=True, slots=True)
class RunFacts:
    """What a recording says about the times of its run."""

    t0_ns: int
    t1_ns: int
    stages: tuple[str, ...]  # names by index
    spans: dict[str, Rows]  # thread -> its spans, [n, 4], in order of their start
    stalls: list[Stall]
    ticks: Ticks | None  # None if no control loop ran
    ages: dict[str, Points]  # age -> one point for each chunk or tick
    frames: dict[str, dict[int, int]]  # thread -> `arg` of a span -> seq of its frame
    safety: list[Any]

    def at_s(self, t_ns: int) -> float:
        """The time since the start of the run."""
        return (t_ns - self.t0_ns) / 1e9


def read_run(recording: Recorded) -> RunFacts:
    """Read the recording once."""
    raw = {thread: np.asarray(rows).reshape(-1, 4) for thread, rows in recording.spans().items()}
    spans = {
        thread: rows[np.lexsort((-rows[:, 2], rows[:, 1]))]
        for thread, rows in raw.items()
        if len(rows)
    }
    chunks = list(recording.chunks())
    t0_ns, starts_ns = recording.t0_ns, ticks_of(spans)
    header = recording.header
    return RunFacts(
        t0_ns=t0_ns,
        t1_ns=max((int(rows[:, 2].max()) for rows in spans.values()), default=t0_ns),
        stages=header.stages,
        spans=spans,
        stalls=find_stalls(spans, header.stages),
        ticks=compare_with_grid(starts_ns, header.config.control_period_ns)
        if len(starts_ns)
        else None,
        ages=_ages(spans.get("control"), chunks, t0_ns),
        frames=_frames(chunks, list(recording.conditions())),
        safety=list(recording.safety()),
    )


def _ages(control: Rows | None, chunks: list[ChunkMsg], t0_ns: int) -> dict[str, Points]:
    """The ages as the runtime counts them: see `ages_of_spans` and `System1.step`."""
    none = np.zeros((0, 4), np.int64)
    of_spans = ages_of_spans(
        none if control is None else control, {chunk.seq: chunk for chunk in chunks}
    )
    published = np.array([chunk.t_publish_ns for chunk in chunks], np.int64)
    condition_age = np.array([chunk.condition_age_ns for chunk in chunks], np.int64)
    of_chunks = {"condition_age": np.stack([published, condition_age], axis=1)}
    return {name: _points(found, t0_ns) for name, found in (of_spans | of_chunks).items()}


def _points(found: npt.NDArray[np.int64], t0_ns: int) -> Points:
    return np.stack([(found[:, 0] - t0_ns) / 1e9, np.maximum(found[:, 1], 0) / 1e6], axis=1)


def _frames(chunks: list[ChunkMsg], conditions: list[ConditionMsg]) -> dict[str, dict[int, int]]:
    of_chunk = {chunk.seq: chunk.parent_seq for chunk in chunks}
    return {"control": of_chunk, "publish system1": of_chunk} | {
        "publish system2": {condition.seq: condition.parent_seq for condition in conditions}
    }
