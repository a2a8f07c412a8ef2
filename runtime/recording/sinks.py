"""The recorder's sinks, and the messages that set them up and end them.

The same group of sinks runs in a process of its own or, for lockstep, in this one.
"""

from __future__ import annotations

import importlib
import pickle
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, Protocol, cast

from runtime.recording.mcap_writer import McapFile, WriterStatus

FILE: Final = "run.mcap"


class Sink(Protocol):
    """What takes every message: see `recording.topics.TOPICS`. An error ends it, not the run."""

    def take(self, message: object) -> None: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class SinkSpec:
    """A sink by name, "module:Class", and what it is made with: picklable."""

    target: str
    options: dict[str, Any] = field(default_factory=dict)

    def make(self) -> Sink:
        module, _, name = self.target.partition(":")
        return cast("Sink", getattr(importlib.import_module(module), name)(**self.options))


@dataclass(frozen=True, slots=True)
class Setup:
    """The first message to the process. The process answers with a `WriterStatus`, or with the
    V2AError or OSError that kept a sink from being made."""

    folder: Path | None
    header: dict[str, Any]
    sinks: tuple[SinkSpec, ...] = ()


@dataclass(frozen=True, slots=True)
class End:
    """The last message to the process; it answers with a `WriterStatus` and ends."""

    summary: dict[str, Any] | None


def send(pipe: Connection, message: object) -> None:
    """`pipe.send`, but from bytes: it pickles into a BytesIO, and where it fails, to collect that
    crashes Python 3.12.1 ("deallocated BytesIO object has exported buffers")."""
    pipe.send_bytes(pickle.dumps(message, pickle.HIGHEST_PROTOCOL))


def receive(pipe: Connection) -> Any:
    """What `send` sent. Raises EOFError at the end."""
    return pickle.loads(pipe.recv_bytes())  # of our own process


class SinkGroup:
    """The file and the other sinks: what messages are handed to, a batch at a time."""

    def __init__(self, setup: Setup) -> None:
        """Raises what a sink can't be made for."""
        self._sinks = [spec.make() for spec in setup.sinks]
        self._file = McapFile(setup.folder / FILE, setup.header) if setup.folder else None

    @property
    def status(self) -> WriterStatus:
        return self._file.status if self._file else WriterStatus()

    def take(self, batch: list[object]) -> None:
        """A batch a chunk of the file: what has arrived is safe."""
        for message in batch:
            for sink in [*self._sinks]:
                self._or_end(sink, lambda: sink.take(message))  # noqa: B023  called at once
            if self._file:
                self._file.take(message)
        if self._file:
            self._file.flush()

    def close(self, summary: dict[str, Any] | None) -> None:
        if self._file:
            self._file.close(summary)
        for sink in [*self._sinks]:
            self._or_end(sink, sink.close)

    def _or_end(self, sink: Sink, action: Callable[[], None]) -> None:
        try:
            action()
        except Exception:
            self._sinks.remove(sink)
            traceback.print_exc()
            name = type(sink).__name__
            print(f"warning: {name} failed and ended; the run goes on", file=sys.stderr, flush=True)
