"""A recording, read: `Recording(path)`, also of a run that was killed or still goes on."""

from __future__ import annotations

import json
import os
import struct
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, TypeVar

import numpy as np
import numpy.typing as npt
from mcap.exceptions import McapError
from mcap.reader import make_reader
from mcap.records import Channel, Footer, McapRecord, Message, Metadata
from mcap.stream_reader import StreamReader
from mcap.writer import MCAP0_MAGIC
from zstandard import ZstdError

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, StateMsg
from runtime.recording.mcap_writer import HEADER, SUMMARY, TEXT
from runtime.recording.messages import LogLine, Reset, SafetyChange, Spans
from runtime.recording.sinks import FILE
from runtime.recording.topics import TOPICS, frame_head
from v2a.errors import ConfigError

# What reading meets where a crash tore the file, or a disk damaged it.
TORN: Final = (McapError, struct.error, ValueError, ZstdError)

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Extent:
    """What is in the file: messages by topic, the times of the first and the last, and whether the
    file has its end."""

    messages: dict[str, int]
    first_ns: int
    last_ns: int
    whole: bool


class Recording:
    """What `path`, a recording's folder or its `.mcap`, holds. Every call reads the file anew.

    Messages come in the order of their `seq`; what a crash tore off the end is not there.
    """

    def __init__(self, path: Path) -> None:
        """Raises ConfigError where there is no recording."""
        self.path = path / FILE if path.is_dir() else path
        try:
            self.header = self._header()
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; name the folder of a recording, or its {FILE}"
            ) from error

    @property
    def t0_ns(self) -> int:
        """When the run began."""
        return int(self.header["start_ns"])

    def frames(self) -> Iterator[FrameMsg]:
        """With the `history` that they had, less pictures that were not recorded. Raises
        ModuleNotFoundError where there is no OpenCV."""
        recent: dict[int, Image] = {}
        for frame in self._messages(FrameMsg):
            recent[frame.t_capture_ns] = frame.image
            history = tuple((t_ns, recent[t_ns]) for t_ns, _ in frame.history if t_ns in recent)
            recent = dict(history)
            yield replace(frame, history=history)

    def frame_heads(self) -> Iterator[FrameMsg]:
        """Without a picture, so in no time; `history` has the times of all that it had."""
        return map(frame_head, self._rows(FrameMsg))

    def states(self) -> Iterator[StateMsg]:
        return self._messages(StateMsg)

    def conditions(self) -> Iterator[ConditionMsg]:
        """Without their tensors."""
        return self._messages(ConditionMsg)

    def chunks(self) -> Iterator[ChunkMsg]:
        return self._messages(ChunkMsg)

    def spans(self) -> dict[str, npt.NDArray[np.int64]]:
        """By thread, as `SpanRing.drain` has them: int64 [n, 4]."""
        rows: dict[str, list[npt.NDArray[np.int64]]] = {}
        for spans in self._messages(Spans):
            rows.setdefault(spans.thread, []).append(spans.rows)
        return {thread: np.concatenate(parts) for thread, parts in rows.items()}

    def safety(self) -> list[SafetyChange]:
        return list(self._messages(SafetyChange))

    def instructions(self) -> list[str]:
        """Of each epoch; the last one holds in those after it, too."""
        texts = [str(self.header["config"]["instruction"])]
        for reset in self._messages(Reset):
            texts += texts[-1:] * (reset.epoch - len(texts))
            texts.append(texts[-1] if reset.instruction is None else reset.instruction)
        return texts

    def log(self) -> list[LogLine]:
        """Faults and warnings."""
        return list(self._messages(LogLine))

    def summary(self) -> dict[str, Any] | None:
        """That of the run's end; None where it was killed, or still goes on."""
        with self.path.open("rb") as file, suppress(*TORN):
            for record in make_reader(file).iter_metadata():
                if record.name == SUMMARY:
                    return dict(json.loads(record.metadata[TEXT]))
        return None

    def extent(self) -> Extent:
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

    def _header(self) -> dict[str, Any]:
        for record in self._records():
            if isinstance(record, Metadata) and record.name == HEADER:
                return dict(json.loads(record.metadata[TEXT]))
        raise ConfigError(f"{self.path}: not a recording of v2a; name its folder, or its {FILE}")

    def _messages(self, kind: type[M]) -> Iterator[M]:
        return map(TOPICS[kind].message, self._rows(kind))

    def _rows(self, kind: type) -> Iterator[dict[str, Any]]:
        channels = set()
        for record in self._records():
            if isinstance(record, Channel) and record.topic == TOPICS[kind].name:
                channels.add(record.id)
            elif isinstance(record, Message) and record.channel_id in channels:
                yield json.loads(record.data)

    def _records(self) -> Iterator[McapRecord]:
        with self.path.open("rb") as file, suppress(*TORN):
            yield from StreamReader(file, validate_crcs=True).records
