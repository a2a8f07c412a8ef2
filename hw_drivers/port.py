"""Serial ports: what a bus needs of one, and the one that pyserial opens."""

from __future__ import annotations

import contextlib
import errno
import os
import select
import termios
from collections.abc import Callable
from typing import Protocol, TypeVar

import serial
from serial.tools import list_ports

from v2a.errors import PortError

ResultT = TypeVar("ResultT")

_READ_BYTES = 4096
# A line that takes no bytes for so long is hung; to wait for it would stop the control loop.
_WRITE_TIMEOUT_S = 0.25

# What open() failed with -> what to do about it.
_OPEN_ADVICE = {
    errno.EACCES: "no permission; add yourself: sudo usermod -aG dialout $USER, and log in again",
    errno.EPERM: "no permission; add yourself: sudo usermod -aG dialout $USER, and log in again",
    errno.EBUSY: "in use by another program; close that one (sudo fuser -v PORT names it)",
    errno.EAGAIN: "in use by another program; close that one (sudo fuser -v PORT names it)",
}


class Port(Protocol):
    """Bytes out, bytes in. Every method raises PortError once the port is gone."""

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """Whatever has arrived; waits up to `timeout_s` for the first byte, b"" if none comes."""
        ...

    def reset_input(self) -> None:
        """Throw away what has arrived."""
        ...

    def close(self) -> None:
        """Give the port back; a second call does nothing."""
        ...


class SerialPort:
    """A serial port at 8N1, for this process alone."""

    def __init__(self, path: str, baud: int) -> None:
        """Raises PortError with one line that says what to do."""
        self._path = path
        try:
            self._serial = serial.Serial(
                path, baud, timeout=0, write_timeout=_WRITE_TIMEOUT_S, exclusive=True
            )
        except (serial.SerialException, ValueError, termios.error) as error:
            raise PortError(_open_message(path, baud, error)) from error
        # FTDI adapters hold bytes back for up to 16 ms (ROBOTIS-GIT/DynamixelSDK#288) until told
        # not to; ports without such a timer (CDC-ACM, pseudo terminals) refuse, and need nothing.
        with contextlib.suppress(ValueError, OSError):
            self._serial.set_low_latency_mode(True)

    def write(self, data: bytes) -> None:
        """See `Port`."""
        self._or_vanished(lambda: self._serial.write(data))

    def read(self, timeout_s: float) -> bytes:
        """See `Port`."""
        return self._or_vanished(lambda: self._read(timeout_s))

    def _read(self, timeout_s: float) -> bytes:
        # pyserial's own read(timeout) asks for a number of bytes and sets up the port anew when
        # the timeout changes; the file descriptor tells just what is there.
        fd = self._serial.fileno()
        if not select.select([fd], [], [], timeout_s)[0]:
            return b""
        data = os.read(fd, _READ_BYTES)
        if not data:  # ready and empty: the end of a terminal that was hung up
            raise OSError(errno.EIO, "hung up")
        return data

    def reset_input(self) -> None:
        """See `Port`."""
        self._or_vanished(self._serial.reset_input_buffer)

    def close(self) -> None:
        """See `Port`."""
        self._serial.close()

    def _or_vanished(self, action: Callable[[], ResultT]) -> ResultT:
        try:
            return action()
        # pyserial's exceptions are OSErrors; termios.error is not.
        except (OSError, termios.error) as error:
            raise PortError(
                f"{self._path}: vanished or was closed ({error}); "
                "check the cable and the power, then connect again"
            ) from error


def _open_message(path: str, baud: int, error: Exception) -> str:
    if not os.path.exists(path):
        found = ", ".join(sorted(port.device for port in list_ports.comports())) or "none"
        return f"{path}: no such serial port (found: {found}); plug it in or correct `port`"
    code = getattr(error, "errno", None) or 0
    advice = _OPEN_ADVICE.get(code, f"cannot be opened at {baud} baud: {error}")
    return f"{path}: {advice}"
