"""Output that a run can do without: a lost line must not end or delay it.

The reader of a pipe may be gone (`| head`) or asleep, a disk full, a terminal closed. An ordinary
stream then raises an error or waits, and both would stop the thread that watches the robot.
"""

from __future__ import annotations

import errno
import io
import os
import select
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TextIO, cast

from v2a.errors import OutputLost

STATUS_WAIT_S: Final = 0.1
RESULT_WAIT_S: Final = 5.0
_PIECE: Final = select.PIPE_BUF  # a pipe that `poll` calls writable takes as much without waiting


class ExpendableOutput(io.TextIOBase):
    """A text stream that writes to a descriptor. What cannot be written in time is lost.

    `lost` is the error of the first write that failed, None if none did.
    """

    def __init__(self, stream: TextIO, wait_s: float) -> None:
        """Take over `stream`. A write waits at most `wait_s` for a reader to make room."""
        self.lost: OSError | None = None
        self._fd = stream.fileno()
        self._stream = stream  # closing it would close the descriptor
        self._wait_s = wait_s
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLOUT)

    @property
    def encoding(self) -> str:  # type: ignore[override]
        """The encoding of the stream that this one takes over."""
        return self._stream.encoding

    @property
    def errors(self) -> str:  # type: ignore[override]
        """What happens to a character that the encoding lacks."""
        return "backslashreplace"

    def writable(self) -> bool:
        """Always true."""
        return True

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._fd

    def isatty(self) -> bool:
        """Return whether the descriptor is a terminal."""
        return os.isatty(self._fd)

    def write(self, text: str) -> int:
        """Write at once, without a buffer. Never raises OSError."""
        data = text.encode(self.encoding, self.errors)
        try:
            while data:
                data = data[self._write_piece(data) :]
        except OSError as error:
            self.lost = self.lost or error
        return len(text)

    def _write_piece(self, data: bytes) -> int:
        if not self._poll.poll(self._wait_s * 1e3):
            raise OSError(errno.ETIMEDOUT, "nobody reads it")
        try:
            return os.write(self._fd, data[:_PIECE])
        except BlockingIOError:  # another process has made it non-blocking, and was faster
            return 0


class _Nowhere(io.TextIOBase):
    """Drops everything, in place of a stream whose descriptor is closed."""

    encoding = "utf-8"
    errors = "strict"

    def writable(self) -> bool:
        return True

    def write(self, text: str) -> int:
        return len(text)


def expendable(stream: TextIO | None, wait_s: float) -> TextIO:
    """Return a stream in place of `stream` that never raises and waits `wait_s` at most.

    None, which stands for a closed descriptor, becomes one that drops everything. A stream without
    a descriptor is returned as it is.
    """
    if stream is None:
        return cast("TextIO", _Nowhere())
    try:
        return cast("TextIO", ExpendableOutput(stream, wait_s))
    except (OSError, ValueError):
        return stream


def open_missing_streams() -> None:
    """Open the null device where a standard descriptor is closed.

    The next file or socket would get its number, and a library that prints would write into it.
    """
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)  # takes the lowest number


def say(line: str) -> None:
    """Print a line on stderr. A stream that fails loses it."""
    if sys.stderr is not None:
        with suppress(OSError, ValueError):
            print(line, file=sys.stderr, flush=True)


def expend_stderr() -> None:
    """Make stderr expendable for the rest of this process."""
    sys.stderr = expendable(sys.stderr, STATUS_WAIT_S)


@contextmanager
def expendable_stdout() -> Iterator[TextIO]:
    """Inside this context stdout is expendable."""
    before = sys.stdout
    sys.stdout = expendable(before, RESULT_WAIT_S)
    try:
        yield sys.stdout
    finally:
        sys.stdout = before


def lost(stream: TextIO) -> str | None:
    """Return why something that was written to `stream` did not arrive; None if all of it did."""
    error = stream.lost if isinstance(stream, ExpendableOutput) else None
    return None if error is None else error.strerror or str(error)


class ProductOutput:
    """Stands for stdout, whose text is the command's product: a failed write is an OutputLost."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        """Write `text`. Raises OutputLost."""
        if text == "":  # click tries a stream with it, and drops what that raises
            return 0
        with self._loss():
            return self._stream.write(text)

    def flush(self) -> None:
        """Write what is still in the buffer. Raises OutputLost."""
        with self._loss():
            self._stream.flush()

    @contextmanager
    def _loss(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            # Python flushes again at its end, and would exit with 120.
            with suppress(OSError, ValueError), Path(os.devnull).open("w") as null:
                os.dup2(null.fileno(), self._stream.fileno())
            reason = error.strerror or str(error)
            raise OutputLost(f"stdout could not be written: {reason}") from error


def watch_stdout() -> None:
    """Let a write to stdout that fails raise OutputLost for the rest of this process."""
    if sys.stdout is not None:
        sys.stdout = cast("TextIO", ProductOutput(sys.stdout))
