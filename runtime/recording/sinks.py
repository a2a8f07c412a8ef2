"""The recorder's sinks, and the messages that set them up and end them.

The same group of sinks runs in the recorder process or, for lockstep, in the policy's process.
"""

from __future__ import annotations

import importlib
import pickle
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol, cast

from runtime.recording.header import Header
from runtime.recording.mcap_writer import McapFile, WriterStatus
from runtime.summary_model import RunSummary
from v2a.output import say


class Sink(Protocol):
    """Takes every message of `recording.topics.TOPICS`. An exception ends the sink, not the run."""

    def take(self, message: object) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """How to make a sink: "module:Class" and its keyword arguments. Picklable.

    The recorder process inherits `descriptors`, which the arguments may name.
    """

    target: str
    options: dict[str, Any] = field(default_factory=dict)
    descriptors: tuple[int, ...] = ()

    def make(self) -> Sink:
        module, _, name = self.target.partition(":")
        return cast("Sink", getattr(importlib.import_module(module), name)(**self.options))


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to the recorder process.

    The process answers with a `WriterStatus`, or with the V2AError or OSError that it met while it
    made the sinks.
    """

    folder: Path | None
    header: Header
    sinks: tuple[SinkSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The last message to the recorder process, which answers with a `WriterStatus` and ends."""

    summary: RunSummary | None


def send(pipe: Connection, message: object) -> None:
    """Send a pickled message.

    `pipe.send` pickles into a BytesIO. When it fails, Python 3.12.1 crashes as it collects that
    object ("deallocated BytesIO object has exported buffers").
    """
    pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(pipe: Connection) -> Any:
    """Receive what `send` sent. Raises EOFError if the peer has closed the pipe."""
    return pickle.loads(pipe.recv_bytes())  # safe: our own process wrote it


class SinkGroup:
    """The recording's file and the other sinks. Takes messages in batches."""

    def __init__(self, setup: Setup) -> None:
        """Make the sinks. Raises whatever a sink raises."""
        self._sinks = [spec.make() for spec in setup.sinks]
        self._file = McapFile(setup.folder, setup.header) if setup.folder else None

    @property
    def status(self) -> WriterStatus:
        return self._file.status if self._file else WriterStatus()

    def take(self, batch: list[object]) -> None:
        """Hand a batch to every sink; the file writes it as one chunk, which survives a crash."""
        for message in batch:
            for sink in [*self._sinks]:
                self._or_end(sink, lambda: sink.take(message))  # noqa: B023  called at once
            if self._file:
                self._file.take(message)
        if self._file:
            self._file.flush()

    def close(self, end: End | None) -> None:
        """Close every sink; without an `end` the recording is one of a run that was killed."""
        if self._file:
            self._file.close(end is not None, None if end is None else end.summary)
        for sink in [*self._sinks]:
            self._or_end(sink, sink.close)

    def _or_end(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._sinks.remove(sink)
            say(traceback.format_exc().rstrip())
            say(f"warning: {type(sink).__name__} failed and ended; the run goes on")
