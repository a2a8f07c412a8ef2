"""The recorder's part in the policy's process (docs/recording.md).

It collects messages, spans and changes of the safety state. Twenty times a second it hands them to
the recorder process, which writes `run.mcap`. A worker that offers a message never waits: when the
recorder is behind, it drops messages and counts them. When the disk is full or the recorder process
dies, it warns once and the robot goes on.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count, takewhile
from pathlib import Path
from typing import Any, Final

from runtime.mailbox import ConditionMsg, FrameMsg
from runtime.recording.header import Header
from runtime.recording.link import RecorderProcess, RecorderTransport, killed_after
from runtime.recording.messages import NO_IMAGE, RunCounters, SafetyChange, Spans, to_json
from runtime.recording.sinks import Setup, SinkSpec
from runtime.safety.safety import SafetyRecord
from runtime.summary_model import RunSummary
from v2a.errors import ConfigError
from v2a.files import write_text
from v2a.output import say
from v2a.spans import Tracer

RATE_HZ = 20.0  # one period is the most that a power cut can lose
COUNTERS_EVERY = 4  # so every 200 ms, as often as the control process sends its notes
END_S = 30.0  # how long a slow disk or a busy machine may take to write the rest

SUMMARY_FILE: Final = "summary.json"
WAITING_MAX: Final = 4096  # messages of one kind: 40 s of states at 100 Hz
PICTURES_MAX: Final = 60  # fewer, because they are big: 2 s at 30 Hz


def _make(folder: Path) -> Path:
    folder.mkdir(parents=True)
    return folder


def _without_history(frame: FrameMsg) -> FrameMsg:
    return replace(frame, history=tuple((t_ns, NO_IMAGE) for t_ns, _ in frame.history))


def _without_tensors(condition: ConditionMsg) -> ConditionMsg:
    return replace(condition, tensors={})


# Messages lose what was sent before (older pictures) and what nobody records (tensors).
_SLIM: Final[dict[type, Callable[[Any], object]]] = {
    FrameMsg: _without_history,
    ConditionMsg: _without_tensors,
}


@dataclass(slots=True)
class Waiting:
    """Messages of one kind, written by one thread."""

    messages: deque[Any] = field(default_factory=deque)
    dropped: int = 0


class Recorder:
    """Drains the tracer, and feeds the recording and the other `sinks`.

    `folder` is the recording's new folder, which `open` makes, or a function that makes it and
    returns it. None records nothing.
    """

    def __init__(
        self,
        tracer: Tracer,
        safety: SafetyRecord,
        folder: Path | Callable[[], Path] | None,
        sinks: tuple[SinkSpec, ...] = (),
        transport: Callable[[Setup], RecorderTransport] = RecorderProcess.start,
    ) -> None:
        self.fault: str | None = None  # why the recording stopped early
        self._ending = "; the run goes on"
        self._tracer = tracer
        self._safety = safety
        self._folder = folder if isinstance(folder, Path) else None
        self._make_folder = partial(_make, folder) if isinstance(folder, Path) else folder
        self._sinks = sinks
        self._make_transport = transport
        self._transport: RecorderTransport | None = None
        self._lost = 0  # messages that the transport or the writer lost
        self._waiting: defaultdict[type, Waiting] = defaultdict(Waiting)
        self._counting = (
            threading.Lock()
        )  # one reader of the tracer at a time: the thread or a summary
        self._sending = threading.Lock()  # one sender at a time: the thread or `close`
        self._told_change = safety.changes[-1]

    @property
    def folder(self) -> Path | None:
        """The recording's folder. None if there is none, and before `open` made it."""
        return self._folder

    @property
    def dropped(self) -> int:
        """Number of messages that were offered and are not in the recording."""
        return self._lost + sum(kind.dropped for kind in list(self._waiting.values()))

    def open(self, header: Header) -> Recorder:
        """Make the folder and begin.

        Raises ConfigError if the folder can't be made, and the V2AError of a sink that can't.
        """
        if self._make_folder is None and not self._sinks:
            return self
        try:
            if self._make_folder is not None:
                self._folder = self._make_folder()
            self._transport = self._make_transport(Setup(self._folder, header, self._sinks))
        except OSError as error:
            raise ConfigError(
                f"{self._folder}: can't record there: {error.strerror or error}; name a new folder"
            ) from error
        return self

    def offer(self, message: object) -> None:
        """Queue a message for the sinks; never blocks."""
        kind = type(message)
        waiting = self._waiting[kind]
        if self._transport is None:
            waiting.dropped += self.fault is not None
        elif len(waiting.messages) >= (PICTURES_MAX if kind is FrameMsg else WAITING_MAX):
            waiting.dropped += 1
        else:
            waiting.messages.append(_SLIM[kind](message) if kind in _SLIM else message)

    def drain(self) -> None:
        """Send everything since the last drain to the sinks. Waits for a slow disk."""
        self._count_spans()
        with self._sending:
            batch = [*self._new_changes(), *self._all_waiting()]
            if batch:
                self._or_stop(batch, lambda transport: transport.send(batch))

    def stage_table(self, stages: Sequence[str]) -> dict[str, dict[str, float]]:
        """How long each stage took so far: see `Tracer.stage_table`."""
        self._count_spans()
        with self._counting:
            return self._tracer.stage_table(stages)

    def close(self, summarise: Callable[[], RunSummary | None] = lambda: None) -> None:
        """Send the rest and end the recording.

        `summarise` is called after the rest was sent, so that it counts all of it. Its summary goes
        to the end of the recording and to `summary.json`.
        """
        if self._transport is None:
            return
        self._ending = "; its last part is missing"
        with killed_after(END_S, self._transport):
            self.drain()
            summary = summarise()
            self.drain()
            if summary and self._folder:
                self._write_summary(self._folder, summary)
            self._or_stop([], lambda transport: transport.close(summary))
        self._transport = None

    def _write_summary(self, folder: Path, summary: RunSummary) -> None:
        try:
            text = to_json(summary, indent=1) + "\n"
            write_text(folder / SUMMARY_FILE, text)
        except OSError as error:
            self._say(f"{folder}: no {SUMMARY_FILE}: {error.strerror}")

    def _count_spans(self) -> None:
        with self._counting:
            for thread, rows in self._tracer.drain().items():
                if len(rows):
                    self.offer(Spans(thread, rows))

    def _all_waiting(self) -> Iterator[object]:
        for waiting in list(self._waiting.values()):
            for _ in range(len(waiting.messages)):
                yield waiting.messages.popleft()

    def _new_changes(self) -> Iterator[SafetyChange]:
        changes = list(self._safety.changes)[::-1]
        new = [*takewhile(lambda change: change is not self._told_change, changes)]
        self._told_change = changes[0]
        return (SafetyChange(c.t_ns, c.state.value, c.reason) for c in reversed(new))

    def _or_stop(self, batch: list[object], action: Callable[[RecorderTransport], None]) -> None:
        """Do `action` if there is a transport. If it fails, end the recording and lose `batch`."""
        if self._transport is None:
            return
        try:
            action(self._transport)
            self._lost = self._transport.status.dropped
            self._say(self._transport.status.fault)
        except OSError as error:
            self._transport = None
            self._say(f"{self._folder}: recording stopped: {error}")
            batch += self._all_waiting()
            self._lost += len(batch)

    def _say(self, fault: str | None) -> None:
        if fault and not self.fault:
            self.fault = fault
            say(f"warning: {fault}{self._ending}")


def record_loop(
    recorder: Recorder, counters: Callable[[], RunCounters], stopping: Callable[[], bool]
) -> None:
    """Drain until `stopping()`, and offer `counters()` before every `COUNTERS_EVERY`th drain."""
    for number in count():
        if stopping():
            return
        if number % COUNTERS_EVERY == 0:
            recorder.offer(counters())
        recorder.drain()
        time.sleep(1 / RATE_HZ)
