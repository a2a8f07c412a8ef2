"""`Recording(path)` reads a recording, also of a run that was killed or still goes on.

A damaged place costs the messages in it and no others. `damage` lists all such places.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, TypeVar

import numpy as np
import numpy.typing as npt
from mcap.records import Metadata
from pydantic import ValidationError

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, StateMsg
from runtime.recording.checks import check
from runtime.recording.container import Damage, FileState, RawMessage, walk
from runtime.recording.header import Header
from runtime.recording.index import Counted, counted
from runtime.recording.mcap_writer import HEADER, SUMMARY, TEXT
from runtime.recording.messages import LogLine, Reset, SafetyChange, Spans
from runtime.recording.pieces import FILE, pieces_of
from runtime.recording.topics import TOPICS, Row, frame_head
from runtime.summary_model import RunSummary
from v2a.bounds import RECORDED
from v2a.config import describe_fault
from v2a.errors import ConfigError, DamagedRecording

EPOCHS_MAX: Final = 100_000
# What a message raises that no version of v2a wrote.
_FOREIGN: Final = (
    ArithmeticError,
    AttributeError,
    LookupError,
    MemoryError,
    RecursionError,
    TypeError,
    ValueError,
)
_LIGHT: Final = tuple(
    topic.name for kind, topic in TOPICS.items() if kind not in (FrameMsg, StateMsg)
)
_NAMED: Final = 3  # damaged places in a message

M = TypeVar("M")
ModelT = TypeVar("ModelT", Header, RunSummary)


@dataclass(frozen=True, slots=True)
class Extent:
    """How much is in the recording."""

    messages: dict[str, int]  # topic -> number of messages
    first_ns: int  # log time of the first message, or of the start if there is none
    last_ns: int
    whole: bool  # whether every file has its end


class Recording:
    """The recording at `path`: its folder, or its `run.mcap`. A call sees what has grown since.

    A long recording has more files beside `run.mcap`: `run.1.mcap`, `run.2.mcap`, ... Messages come
    in the order of their `seq`. Messages that a crash cut off, or that are damaged, are missing.
    """

    def __init__(self, path: Path) -> None:
        """Read the header. Raises ConfigError if `path` is no recording of this version."""
        self.path = path / FILE if path.is_dir() else path
        self._damage: dict[tuple[str, int], Damage] = {}
        self._whole = True
        self._kept: tuple[tuple[int, ...], Mapping[str, list[RawMessage]]] | None = None
        self._spans: dict[str, npt.NDArray[np.int64]] = {}
        self._spans_of: Mapping[str, list[RawMessage]] | None = None
        try:
            self._files, missing = pieces_of(self.path)
            self._damage |= {(name, 0): Damage(name, 0, "missing", None) for name in missing}
            self.header = self._header()
        except OSError as error:
            raise ConfigError(
                f"{self.path}: {error.strerror}; name the folder of a recording, or its {FILE}"
            ) from error

    @property
    def t0_ns(self) -> int:
        """Start of the run on the machine's monotonic clock, ns."""
        return self.header.start_ns

    @property
    def damage(self) -> list[Damage]:
        """The damaged places that were met so far. `extent` meets all of them."""
        return list(self._damage.values())

    def damaged(self) -> str | None:
        """The damaged places that were met so far in a line; None if there are none."""
        places = self.damage
        if not places:
            return None
        named = [self._described(place) for place in places[:_NAMED]]
        more = [f"{len(places) - _NAMED} more"] if len(places) > _NAMED else []
        count = f"{len(places)} damaged {'place' if len(places) == 1 else 'places'}"
        return f"{count}: {'; '.join(named + more)}"

    def complain(self) -> None:
        """Raise DamagedRecording if a damaged place was met so far. Commands do this at last."""
        if said := self.damaged():
            raise DamagedRecording(f"{self.path}: {said}; the result covers only the rest")

    def since_start_s(self, log_ns: int) -> float:
        """Time since the start of the run of a time in the file, s."""
        return (log_ns - self.header.log_ns(self.t0_ns)) / 1e9

    def frames(self) -> Iterator[FrameMsg]:
        """Frames with their pictures and `history`, except pictures that were not recorded.

        Raises ModuleNotFoundError if OpenCV is not installed, and ConfigError if two pictures have
        different sizes.
        """
        recent: dict[int, Image] = {}
        shape = None
        for frame in self._messages(FrameMsg):
            shape = shape or frame.image.shape
            if frame.image.shape != shape:
                raise ConfigError(
                    f"{self.path}: pictures of {shape} and of {frame.image.shape}; no version of "
                    "v2a recorded this"
                )
            recent[frame.t_capture_ns] = frame.image
            history = tuple((t_ns, recent[t_ns]) for t_ns, _ in frame.history if t_ns in recent)
            recent = dict(history)
            yield replace(frame, history=history)

    def frame_heads(self) -> Iterator[FrameMsg]:
        """Frames without pictures, which is fast; `history` keeps the times of all its pictures."""
        return self._messages(FrameMsg, frame_head)

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
        light = self._light()
        if self._spans_of is not light:  # a profile asks three times
            rows: dict[str, list[npt.NDArray[np.int64]]] = {}
            for spans in self._messages(Spans):
                rows.setdefault(spans.thread, []).append(spans.rows)
            self._spans = {thread: np.concatenate(parts) for thread, parts in rows.items()}
            self._spans_of = light
        return self._spans

    def safety(self) -> list[SafetyChange]:
        """Changes of the safety state, oldest first."""
        return list(self._messages(SafetyChange))

    def instructions(self) -> list[str]:
        """The instruction of each epoch; the last one stays valid in later epochs."""
        texts = [self.header.config.instruction]
        for reset in self._messages(Reset):
            if not 0 <= reset.epoch < EPOCHS_MAX:
                raise self._foreign(Reset, f"epoch {reset.epoch}")
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
        if end is None or end.metadata.get(TEXT, "{}") == "{}":
            return None
        return self._model(RunSummary, end)

    def extent(self) -> Extent:
        """Count the messages of the whole recording, and meet all its damage."""
        counts = Counter({topic.name: 0 for topic in TOPICS.values()})
        first_ns = last_ns = None
        if (sound := self._sound()) is not None:
            self._whole = True
            for file in sound:
                counts.update(file.messages)
            ends_ns = [t_ns for file in sound for t_ns in file[1:] if t_ns is not None]
            first_ns, last_ns = min(ends_ns, default=None), max(ends_ns, default=None)
        else:
            for record in self._records(None):
                if isinstance(record, RawMessage):
                    counts[record.topic] += 1
                    first_ns = record.log_ns if first_ns is None else min(record.log_ns, first_ns)
                    last_ns = record.log_ns if last_ns is None else max(record.log_ns, last_ns)
        start_ns = self.header.log_ns(self.t0_ns)
        first_ns, last_ns = (start_ns if t_ns is None else t_ns for t_ns in (first_ns, last_ns))
        return Extent(dict(counts), first_ns, last_ns, self._whole)

    def _sound(self) -> list[Counted] | None:
        """What the index of each file says; None if the checksums of a file do not vouch for it."""
        found = []
        for path in self._files:
            if (file := counted(path)) is None:
                return None
            found.append(file)
        return found

    def _end(self) -> Metadata | None:
        """The record of the summary, which only the last file has."""
        return next(self._metadata(SUMMARY, self._files[::-1]), None)

    def _header(self) -> Header:
        fix = f"name its folder, or its {FILE}"
        fault = ConfigError(f"{self.path}: not a recording of v2a; {fix}")
        for record in self._metadata(HEADER):  # each file begins and ends with a copy
            try:
                return self._model(Header, record)
            except ConfigError as error:
                fault = error
        raise fault

    def _metadata(self, name: str, files: Sequence[Path] | None = None) -> Iterator[Metadata]:
        """The metadata records of this name in `files` (None: all); the messages are skipped."""
        for record in self._records((), files):
            if isinstance(record, Metadata) and record.name == name:
                yield record

    def _model(self, kind: type[ModelT], record: Metadata) -> ModelT:
        try:
            return kind.model_validate_json(record.metadata.get(TEXT, ""), context=RECORDED)
        except ValidationError as error:
            fault = describe_fault(error.errors(include_url=False)[0], kind)
            raise ConfigError(
                f"{self.path}: its {record.name} record: {fault}; "
                "read it with the version of v2a that recorded it"
            ) from error

    def _messages(self, kind: type[M], made: Callable[[Row], M] | None = None) -> Iterator[M]:
        topic = TOPICS[kind]
        convert = made or topic.message
        for number, row in enumerate(self._rows(kind), start=1):
            with self._foreign_in(kind, number):
                message = convert(row)
                check(message, self.header)
            yield message

    def _rows(self, kind: type) -> Iterator[Row]:
        topic = TOPICS[kind].name
        raw = self._light()[topic] if topic in _LIGHT else self._records((topic,))
        found = (record for record in raw if isinstance(record, RawMessage))
        for number, record in enumerate(found, start=1):
            with self._foreign_in(kind, number):
                row = json.loads(record.data)
            yield row

    @contextmanager
    def _foreign_in(self, kind: type, number: int) -> Iterator[None]:
        """Turn what a message raises that v2a did not record into a ConfigError."""
        try:
            yield
        except ModuleNotFoundError:
            raise
        except _FOREIGN as error:
            raise self._foreign(kind, f"number {number}: {_reason(error)}") from error

    def _light(self) -> Mapping[str, list[RawMessage]]:
        """All messages of the topics without pictures and joints, read once while nothing grows.

        Reading costs the unpacking of every picture, whatever the topic.
        """
        sizes = tuple(path.stat().st_size for path in self._files)
        if self._kept is None or self._kept[0] != sizes:
            found: dict[str, list[RawMessage]] = {topic: [] for topic in _LIGHT}
            for record in self._records(_LIGHT):
                if isinstance(record, RawMessage):
                    found[record.topic].append(record)
            self._kept = sizes, found
        return self._kept[1]

    def _records(
        self, wanted: Collection[str] | None, files: Sequence[Path] | None = None
    ) -> Iterator[Metadata | RawMessage]:
        """Read all files once, or only `files`; None wants every topic, and () none."""
        whole = True
        for path in files or self._files:
            state = FileState(path.name)
            yield from walk(path, state, wanted)
            whole = whole and state.whole
            if wanted != ():  # otherwise the messages, and so their times, were skipped
                self._damage |= {(place.file, place.offset): place for place in state.damage}
        self._whole = whole

    def _described(self, place: Damage) -> str:
        times = [
            "the start"
            if place.after_ns is None
            else f"{self.since_start_s(place.after_ns):.3f} s",
            "the end"
            if place.before_ns is None
            else f"{self.since_start_s(place.before_ns):.3f} s",
        ]
        return f"{place.file} at byte {place.offset}, {' to '.join(times)} ({place.what})"

    def _foreign(self, kind: type, what: str) -> ConfigError:
        text = f"a message of {TOPICS[kind].name}: {what}; v2a did not record this"
        return ConfigError(f"{self.path}: {text}")


def _reason(error: BaseException) -> str:
    if isinstance(error, ValidationError):
        return "not a message of this version"
    if isinstance(error, KeyError):
        return f"it has no {error}"
    # numpy's and Python's texts, which name classes and functions
    if isinstance(error, TypeError) or str(error).startswith("could not convert"):
        return "it has other fields or values than a message of this version"
    return (str(error).splitlines() or [type(error).__name__])[0][:120]
