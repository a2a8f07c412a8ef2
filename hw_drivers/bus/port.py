"""Serial ports: the interface that a bus needs, and the port that pyserial opens."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import math
import os
import select
import termios
from pathlib import Path
from typing import Protocol

import serial
from serial.tools import list_ports

from hw_drivers.bus.line_rate import get_baud, is_standard, set_baud
from v2a.errors import PortError

BITS_PER_BYTE = 10  # 8N1: start bit, eight data bits, stop bit

_ANY_STANDARD_BAUD = 38_400  # until the port is open and its true rate can be set
_RATE_TOLERANCE = 0.03  # of a receiver that samples the middle of ten bits, both ends off
_READ_BYTES = 4096
# A port that takes no bytes for this long hangs. Waiting longer would stop the control loop.
_WRITE_TIMEOUT_S = 0.25
_PSEUDO_TERMINALS = "/dev/pts/"
_BY_ID = Path("/dev/serial/by-id")
_USB_SERIAL = Path("/sys/bus/usb-serial/devices")

# errno of a failed open() -> what to do.
_OPEN_ADVICE = {
    errno.EACCES: "no permission; add yourself: sudo usermod -aG dialout $USER, and log in again",
    errno.EPERM: "no permission; add yourself: sudo usermod -aG dialout $USER, and log in again",
    errno.EBUSY: "in use by another program; close that program (sudo fuser -v PORT names it)",
    errno.EAGAIN: "in use by another program; close that program (sudo fuser -v PORT names it)",
}


class RateError(PortError):
    """The port is there, and its adapter or driver cannot do the rate."""


class Port(Protocol):
    """Sends and receives bytes. Every method raises PortError once the port is gone."""

    @property
    def ns_per_byte(self) -> int:
        """How long a byte takes on the wire; 0 if it takes no time."""
        ...

    @property
    def latency_ns(self) -> int:
        """How long the adapter may hold back bytes that have arrived."""
        ...

    def write(self, data: bytes) -> None:
        """Send all of `data`."""
        ...

    def read(self, timeout_s: float) -> bytes:
        """The bytes that have arrived. Waits up to `timeout_s` for the first; b"" if none comes."""
        ...

    def reset_input(self) -> None:
        """Discard the bytes that have arrived."""
        ...

    def close(self) -> None:
        """Close the port. A second call does nothing."""
        ...


class SerialPort:
    """A serial port at 8N1 that no other process can open.

    pyserial opens and configures it. Bytes go through the file descriptor, because pyserial's own
    read(timeout) configures the port anew whenever the timeout changes.
    """

    def __init__(self, path: str, baud: int) -> None:
        """Open the port at `path`.

        Raises RateError if only the rate is refused, PortError for anything else. Both messages
        are one line that says what to do.
        """
        self._path = path
        self._serial = _open(path, baud)
        self._fd = self._serial.fileno()
        self._poll = select.poll()
        self._poll.register(self._fd, select.POLLIN)
        self.ns_per_byte = BITS_PER_BYTE * 1_000_000_000 // baud
        self._refuse_others()
        # FTDI adapters hold bytes back for up to 16 ms by default (ROBOTIS-GIT/DynamixelSDK#288).
        # Ports without such a timer (CDC-ACM, pseudo terminals) refuse this, and do not need it.
        with contextlib.suppress(ValueError, OSError):
            self._serial.set_low_latency_mode(True)
        self.latency_timer_ms = shorten_latency_timer(path)
        self.latency_ns = (self.latency_timer_ms or 0) * 1_000_000

    def _refuse_others(self) -> None:
        """Let the kernel refuse other programs: pyserial's lock stops only those that ask for it.

        Not on a pseudo terminal: its other end would keep the mark after this process was killed.
        """
        if not os.path.realpath(self._path).startswith(_PSEUDO_TERMINALS):
            fcntl.ioctl(self._fd, termios.TIOCEXCL)

    def write(self, data: bytes) -> None:
        """See `Port`."""
        try:
            sent = os.write(self._fd, data)
            while sent < len(data):
                self._wait_to_write()
                sent += os.write(self._fd, data[sent:])
        except (OSError, termios.error) as error:
            raise self._vanished(error) from error

    def _wait_to_write(self) -> None:
        if not select.select([], [self._fd], [], _WRITE_TIMEOUT_S)[1]:
            raise OSError(errno.ETIMEDOUT, "it takes no more bytes")

    def read(self, timeout_s: float) -> bytes:
        """See `Port`. After the timeout it reads once more: if this process was stopped, `poll` may
        time out without having looked (CPython, select_poll_poll_impl on EINTR)."""
        try:
            ready = self._poll.poll(math.ceil(timeout_s * 1e3))
            data = os.read(self._fd, _READ_BYTES)
            if ready and not data:  # ready but empty: the terminal was hung up
                raise OSError(errno.EIO, "hung up")
            return data
        except BlockingIOError:
            return b""
        except (OSError, ValueError) as error:  # ValueError: closed, the descriptor is -1
            raise self._vanished(error) from error

    def reset_input(self) -> None:
        """See `Port`."""
        try:
            termios.tcflush(self._fd, termios.TCIFLUSH)
        except (OSError, ValueError, termios.error) as error:
            raise self._vanished(error) from error

    def close(self) -> None:
        """See `Port`."""
        self._fd = -1
        self._serial.close()

    def _vanished(self, error: Exception) -> PortError:
        return PortError(
            f"{self._path}: vanished or was closed ({error}); "
            "check the cable and the power, then connect again"
        )


def shorten_latency_timer(path: str) -> int | None:
    """Set the adapter's latency timer to 1 ms. Returns the ms read back; None without a timer.

    Only the value read back is certain (ROBOTIS-GIT/DynamixelSDK#116): the kernel's low-latency
    mode does not set the timer on every driver, and an ordinary user may not write it.
    """
    timer = _USB_SERIAL / Path(os.path.realpath(path)).name / "latency_timer"
    if not timer.exists():
        return None
    with contextlib.suppress(OSError):
        timer.write_text("1")
    return int(timer.read_text())


def stable_path(path: str) -> str | None:
    """The port's name under /dev/serial/by-id, which survives a replug; None if it has none."""
    links = sorted(_BY_ID.iterdir()) if _BY_ID.is_dir() else []
    device = os.path.realpath(path)
    return next((str(link) for link in links if os.path.realpath(link) == device), None)


def _open(path: str, baud: int) -> serial.Serial:
    """Open the port, and check that it has the rate."""
    try:
        first = baud if is_standard(baud) else _ANY_STANDARD_BAUD
        opened = serial.Serial(path, first, timeout=0, exclusive=True)
    except (ValueError, termios.error) as error:  # pyserial leaves these from setting the rate
        raise RateError(_rate_message(path, baud, error)) from error
    except OSError as error:  # as SerialException is
        if os.strerror(errno.EINVAL) in str(error):  # the port opened, its settings did not pass
            raise RateError(_rate_message(path, baud, error)) from error
        raise PortError(_open_message(path, baud, error)) from error
    try:
        if not is_standard(baud):
            set_baud(opened.fileno(), baud)
        actual = get_baud(opened.fileno())
    except OSError as error:
        opened.close()
        raise RateError(_rate_message(path, baud, error)) from error
    if abs(actual - baud) > _RATE_TOLERANCE * baud:
        opened.close()
        raise RateError(_rate_message(path, baud, f"its driver sets {actual} instead"))
    return opened


def _rate_message(path: str, baud: int, why: object) -> str:
    return f"{path}: this adapter cannot do {baud} baud ({why}); use another rate, or adapter"


def _open_message(path: str, baud: int, error: Exception) -> str:
    if not os.path.exists(path):
        ports = [port.device for port in list_ports.comports()]
        found = ", ".join(sorted(stable_path(port) or port for port in ports)) or "none"
        return f"{path}: no such serial port (found: {found}); plug it in or correct `port`"
    code = getattr(error, "errno", None) or 0
    advice = _OPEN_ADVICE.get(code, f"cannot be opened at {baud} baud: {error}; is it a port?")
    return f"{path}: {advice}"
