"""The policy's side of the recorder: a process of its own, or the same sinks in this one."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from subprocess import Popen
from typing import Any, Protocol

from runtime.host import process
from runtime.recording.mcap_writer import WriterStatus
from runtime.recording.sinks import End, Setup, SinkGroup, receive, send

START_S = 60.0  # a Jetson's first import of numpy after a boot takes long


class RecorderTransport(Protocol):
    """Where the recorder's batches go; `status` is the newest word from there."""

    status: WriterStatus

    def send(self, batch: list[object]) -> None:
        """May block. Raises OSError where nobody takes it any more."""

    def close(self, summary: dict[str, Any] | None) -> None:
        """End the recording. Raises OSError as `send`."""

    def kill(self) -> None:
        """End it now, and whoever waits for it."""


class InProcess:
    """No process: for lockstep, whose clock stands still meanwhile."""

    def __init__(self, setup: Setup) -> None:
        self._sinks = SinkGroup(setup)
        self.status = self._sinks.status

    def send(self, batch: list[object]) -> None:
        self._sinks.take(batch)
        self.status = self._sinks.status

    def close(self, summary: dict[str, Any] | None) -> None:
        self._sinks.close(summary)
        self.status = self._sinks.status

    def kill(self) -> None:
        """Nobody waits here."""


class RecorderProcess:
    """`runtime.recording.process` at the other end of a pipe."""

    def __init__(self, pipe: Connection, child: Popen[bytes]) -> None:
        self.status = WriterStatus()
        self._pipe, self._process = pipe, child

    @classmethod
    def start(cls, setup: Setup) -> RecorderProcess:
        """Start the process and have it open what `setup` names.

        Raises the V2AError or OSError of what it could not open.
        """
        ours, theirs = Pipe()
        with theirs:
            transport = cls(ours, process.start("runtime.recording.process", theirs.fileno()))
        try:
            with transport._or_died(), killed_after(START_S, transport):
                send(ours, setup)
                transport._hear()
        except BaseException:
            transport._end()
            raise
        return transport

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, batch: list[object]) -> None:
        with self._or_died():
            send(self._pipe, batch)
            while self._pipe.poll():
                self._hear()

    def close(self, summary: dict[str, Any] | None) -> None:
        with self._or_died():
            send(self._pipe, End(summary))
            with suppress(EOFError):
                while True:
                    self._hear()
            if self._process.wait() != 0:
                raise EOFError
        self._end()

    def kill(self) -> None:
        self._process.kill()

    def _hear(self) -> None:
        status = receive(self._pipe)
        if isinstance(status, BaseException):
            raise status
        self.status = status

    @contextmanager
    def _or_died(self) -> Iterator[None]:
        try:
            yield
        except (EOFError, ConnectionError) as error:
            raise OSError(f"the recorder process died (exit code {self._end()})") from error

    def _end(self) -> int:
        self._pipe.close()
        return self._process.wait()


@contextmanager
def killed_after(seconds: float, transport: RecorderTransport) -> Iterator[None]:
    """Kill `transport` after `seconds`, so that nobody in here waits longer for it."""
    killer = threading.Timer(seconds, transport.kill)
    killer.start()
    try:
        yield
    finally:
        killer.cancel()
