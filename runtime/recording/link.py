"""The policy's end of the recorder: a pipe to the recorder process, or sinks in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection, Pipe
from subprocess import Popen
from typing import Protocol

from runtime.host import process
from runtime.recording.mcap_writer import WriterStatus
from runtime.recording.sinks import End, Setup, SinkGroup, receive, send
from runtime.summary_model import RunSummary

START_S = 60.0  # a Jetson's first import of numpy after a boot takes long


class RecorderTransport(Protocol):
    """Carries the recorder's batches to the sinks; `status` is the writer's newest status."""

    status: WriterStatus

    def send(self, batch: list[object]) -> None:
        """Send a batch; may block. Raises OSError if the recorder process has died."""

    def close(self, summary: RunSummary | None) -> None:
        """End the recording. Raises OSError if the recorder process has died."""

    def give_up(self, seconds: float) -> None:
        """End the recorder now: it was awaited for `seconds`."""


class InProcess:
    """Runs the sinks in this process: for lockstep, whose virtual clock does not see the cost."""

    def __init__(self, setup: Setup) -> None:
        self._sinks = SinkGroup(setup)
        self.status = self._sinks.status

    def send(self, batch: list[object]) -> None:
        self._sinks.take(batch)
        self.status = self._sinks.status

    def close(self, summary: RunSummary | None) -> None:
        self._sinks.close(End(summary))
        self.status = self._sinks.status

    def give_up(self, seconds: float) -> None:
        """Nothing to do: no process runs."""


class RecorderProcess:
    """Sends batches through a pipe to `runtime.recording.process`."""

    def __init__(self, pipe: Connection, child: Popen[bytes]) -> None:
        self.status = WriterStatus()
        self._pipe, self._process = pipe, child
        self._gave_up_s: float | None = None

    @classmethod
    def start(cls, setup: Setup) -> RecorderProcess:
        """Start the process and have it open what `setup` names.

        Raises the V2AError or OSError of what it could not open.
        """
        ours, theirs = Pipe()
        with theirs:
            descriptors = [number for sink in setup.sinks for number in sink.descriptors]
            child = process.start("runtime.recording.process", theirs.fileno(), *descriptors)
            transport = cls(ours, child)
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

    def close(self, summary: RunSummary | None) -> None:
        with self._or_died():
            send(self._pipe, End(summary))
            with suppress(EOFError):
                while True:
                    self._hear()
            if self._process.wait() != 0:
                raise EOFError
        self._end()

    def give_up(self, seconds: float) -> None:
        self._gave_up_s = seconds
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
            code = self._end()
            if self._gave_up_s is not None:
                raise OSError(
                    f"the recorder process did not finish within {self._gave_up_s:g} s and was "
                    "killed; the disk or the machine is too busy"
                ) from error
            raise OSError(f"the recorder process died (exit code {code})") from error

    def _end(self) -> int:
        self._pipe.close()
        return self._process.wait()


@contextmanager
def killed_after(seconds: float, transport: RecorderTransport) -> Iterator[None]:
    """Kill `transport` after `seconds`, so that nobody in here waits longer for it."""
    killer = threading.Timer(seconds, transport.give_up, [seconds])
    killer.start()
    try:
        yield
    finally:
        killer.cancel()
