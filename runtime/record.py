"""The recorder: chunks, states and spans to a folder, half a second at a time.

    run.json        what ran: robot, policy, instruction, versions
    chunks.jsonl    one ChunkMsg a line
    states.jsonl    one StateMsg a line
    spans.jsonl     one span a line
    summary.json    at the end

Lines are only ever appended and flushed, so whatever was written before a crash can be read
(`read_lines` leaves out a torn last line). Who offers a message never waits: when the recorder is
behind, messages are dropped and counted. When the disk is full it stops writing, says so once, and
the robot goes on.
"""

from __future__ import annotations

import json
import math
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import numpy as np

from runtime.mailbox import ChunkMsg, Message, StateMsg
from v2a.errors import ConfigError
from v2a.names import STAGES
from v2a.spans import Tracer

PERIOD_NS = 500_000_000
WAITING_MAX = 4096  # 40 s of states at 100 Hz

_FILES = {ChunkMsg: "chunks.jsonl", StateMsg: "states.jsonl"}
_SPANS = "spans.jsonl"


class Recorder:
    """Drains the tracer; with a `folder` (new, made by `open`), writes the files above."""

    def __init__(self, tracer: Tracer, folder: Path | None) -> None:
        self.folder = folder
        self.dropped = 0
        self.fault: str | None = None  # why it stopped writing
        self._tracer = tracer
        self._waiting: deque[Message] = deque()
        self._lock = threading.Lock()  # one drainer at a time: the recorder's thread or a summary
        self._files: dict[str, IO[str]] = {}

    def open(self) -> Recorder:
        """Make the folder and its files. Raises ConfigError where that can't be."""
        if self.folder is None:
            return self
        try:
            self.folder.mkdir(parents=True)
            for name in (*_FILES.values(), _SPANS):
                self._files[name] = (self.folder / name).open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"{self.folder}: can't record there: {error.strerror}; name a new folder"
            ) from error
        return self

    def offer(self, message: Message) -> None:
        """Take a message to be written; never blocks."""
        if self.fault or len(self._waiting) >= WAITING_MAX:
            self.dropped += 1
        elif self._files:
            self._waiting.append(message)

    def drain(self) -> None:
        """Write what has come since the last drain."""
        with self._lock, self._or_stop_writing():
            spans = self._tracer.drain()  # first: it is counted even where it can't be written
            for _ in range(len(self._waiting)):
                message = self._waiting.popleft()
                self._write(_FILES[type(message)], _row(message))
            for thread, rows in spans.items():
                self._write_spans(thread, rows.tolist())
            for file in self._files.values():
                file.flush()

    def stage_table(self) -> dict[str, dict[str, float]]:
        self.drain()
        with self._lock:
            return self._tracer.stage_table()

    def write_json(self, name: str, content: dict[str, Any]) -> None:
        if self.folder is not None:
            with self._lock, self._or_stop_writing():
                text = to_json(content, indent=1) + "\n"
                (self.folder / name).write_text(text, encoding="utf-8")

    def close(self) -> None:
        self.drain()
        self._close_files()

    def _close_files(self) -> None:
        files, self._files = self._files, {}
        for file in files.values():
            with suppress(OSError):  # of what `drain` could not flush, which it has said
                file.close()

    @contextmanager
    def _or_stop_writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            self.dropped += len(self._waiting)
            self._waiting.clear()
            self._close_files()
            self.fault = f"{self.folder}: recording stopped: {error.strerror or error}"
            print(f"warning: {self.fault}; the run goes on", file=sys.stderr, flush=True)

    def _write_spans(self, thread: str, spans: list[list[int]]) -> None:
        if not self._files:
            return
        for stage, t0_ns, t1_ns, arg in spans:
            row = {"thread": thread, "stage": STAGES[stage], "t0_ns": t0_ns, "t1_ns": t1_ns}
            self._write(_SPANS, row | {"arg": arg})

    def _write(self, name: str, row: dict[str, Any]) -> None:
        # A line at a time: json keeps the GIL for as long as one call takes.
        if name in self._files:
            self._files[name].write(to_json(row) + "\n")


def record_loop(recorder: Recorder, stopping: Callable[[], bool]) -> None:
    """Drain twice a second until `stopping()`."""
    while not stopping():
        recorder.drain()
        time.sleep(PERIOD_NS / 1e9)


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a `.jsonl` file, without a last line that a crash tore."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            if line.endswith("\n"):
                yield json.loads(line)


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON that every reader takes: what is not a finite number becomes null."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _row(message: Message) -> dict[str, Any]:
    return {field.name: getattr(message, field.name) for field in fields(message)}
