"""`Recording(path)` reads a recording, also of a run that was killed or still goes on."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Footer, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import MCAP0_MAGIC
from pydantic import ValidationError
from zstandard import ZstdError

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, StateMsg
from runtime.recording.header import Header
from runtime.recording.mcap_writer import HEADER, SUMMARY, TEXT
from runtime.recording.messages import LogLine, Reset, SafetyChange, Spans
from runtime.recording.sinks import FILE
from runtime.recording.topics import TOPICS, Row, frame_head
from runtime.summary_model import RunSummary
from v2a.bounds import RECORDED
from v2a.config import describe_fault
from v2a.errors import ConfigError

# What the readers raise where a crash cut the file off, or a disk damaged it. mcap's reader trusts
# a damaged length, and then raises one of the last two.
TORN: Final = (McapError, struct.error, ValueError, ZstdError, MemoryError, OverflowError)

M = TypeVar("M")
ModelT = TypeVar("ModelT", Header, RunSummary)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is in the file."""

    messages: dict[str, int]  # topic -> number of messages
    first_ns: int  # time of the first message, or of the start if there is none
    last_ns: int
    whole: bool  # whether the file has its end


class Recording:
    """The recording at `path`, which is its folder or its `.mcap`. Every call reads the file anew.

    Messages come in the order of their `seq`. Messages that a crash cut off are missing.
    """

    def __init__(self, path: Path) -> None:
        """Read the header. Raises ConfigError if `path` is no recording of this version."""
        self.path = path / FILE if path.is_dir() else path
        try:
            self.header = self._header()
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; name the folder of a recording, or its {FILE}"
            ) from error

    @property
    def t0_ns(self) -> int:
        """Start of the run on the machine's monotonic clock, ns."""
        return self.header.start_ns

    def frames(self) -> Iterator[FrameMsg]:
        """Frames with their pictures and `history`, except pictures that were not recorded.

        Raises ModuleNotFoundError if OpenCV is not installed.
        """
        recent: dict[int, Image] = {}
        for frame in self._messages(FrameMsg):
            recent[frame.t_capture_ns] = frame.image
            history = tuple((t_ns, recent[t_ns]) for t_ns, _ in frame.history if t_ns in recent)
            recent = dict(history)
            yield replace(frame, history=history)

    def frame_heads(self) -> Iterator[FrameMsg]:
        """Frames without pictures, which is fast; `history` keeps the times of all its pictures."""
        return map(frame_head, self._rows(FrameMsg))

    def states(self) -> Iterator[StateMsg]:
        """One state per control tick."""
        return self._messages(StateMsg)

    def conditions(self) -> Iterator[ConditionMsg]:
        """Conditions without their tensors, which are not recorded."""
        return self._messages(ConditionMsg)

    def chunks(self) -> Iterator[ChunkMsg]:
        """One chunk per run of System 1."""
        return self._messages(ChunkMsg)

    def spans(self) -> dict[str, npt.NDArray[np.int64]]:
        """Thread -> its spans as `SpanRing.drain` gives them: int64 [n, 4]."""
        rows: dict[str, list[npt.NDArray[np.int64]]] = {}
        for spans in self._messages(Spans):
            rows.setdefault(spans.thread, []).append(spans.rows)
        return {thread: np.concatenate(parts) for thread, parts in rows.items()}

    def safety(self) -> list[SafetyChange]:
        """Changes of the safety state, oldest first."""
        return list(self._messages(SafetyChange))

    def instructions(self) -> list[str]:
        """The instruction of each epoch; the last one stays valid in later epochs."""
        texts = [self.header.config.instruction]
        for reset in self._messages(Reset):
            texts += texts[-1:] * (reset.epoch - len(texts))
            texts.append(texts[-1] if reset.instruction is None else reset.instruction)
        return texts

    def log(self) -> list[LogLine]:
        """Faults and warnings."""
        return list(self._messages(LogLine))

    def ended(self) -> bool:
        """Whether the run ended; False if it was killed or still goes on."""
        return self._end() is not None

    def summary(self) -> RunSummary | None:
        """The summary from the end of the run; None if it did not end, and for lockstep.

        Raises ConfigError if another version of v2a wrote it.
        """
        end = self._end()
        return None if end is None or end.metadata[TEXT] == "{}" else self._model(RunSummary, end)

    def extent(self) -> Extent:
        """Count the messages of the whole file."""
        topics: dict[int, str] = {}
        counts: Counter[str] = Counter()
        times: list[int] = []
        record: McapRecord | None = None
        for record in self._records():
            if isinstance(record, Channel):
                topics[record.id] = record.topic
            elif isinstance(record, Message):
                counts[topics[record.channel_id]] += 1
                times.append(record.log_time)
        first, last = (min(times), max(times)) if times else (self.t0_ns, self.t0_ns)
        messages = {topic: counts[topic] for topic in topics.values()}
        return Extent(messages, first, last, isinstance(record, Footer) and self._has_its_end())

    def _has_its_end(self) -> bool:
        with self.path.open("rb") as file:
            file.seek(-len(MCAP0_MAGIC), os.SEEK_END)
            return file.read() == MCAP0_MAGIC

    def _end(self) -> Metadata | None:
        with self.path.open("rb") as file, suppress(*TORN):
            for record in make_reader(file).iter_metadata():
                if record.name == SUMMARY:
                    return record
        return None

    def _header(self) -> Header:
        for record in self._records():
            if isinstance(record, Metadata) and record.name == HEADER:
                return self._model(Header, record)
        raise ConfigError(f"{self.path}: not a recording of v2a; name its folder, or its {FILE}")

    def _model(self, kind: type[ModelT], record: Metadata) -> ModelT:
        try:
            return kind.model_validate_json(record.metadata[TEXT], context=RECORDED)
        except ValidationError as error:
            fault = describe_fault(error.errors(include_url=False)[0], kind)
            raise ConfigError(
                f"{self.path}: its {record.name} record: {fault}; "
                "read it with the version of v2a that recorded it"
            ) from error

    def _messages(self, kind: type[M]) -> Iterator[M]:
        return map(TOPICS[kind].message, self._rows(kind))

    def _rows(self, kind: type) -> Iterator[Row]:
        channels = set()
        for record in self._records():
            if isinstance(record, Channel) and record.topic == TOPICS[kind].name:
                channels.add(record.id)
            elif isinstance(record, Message) and record.channel_id in channels:
                yield json.loads(record.data)

    def _records(self) -> Iterator[McapRecord]:
        with self.path.open("rb") as file, suppress(*TORN):
            yield from StreamReader(file, validate_crcs=True).records
