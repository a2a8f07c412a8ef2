"""Emergency stop inputs, asked by the control loop at each tick: they work while the policy hangs.

The third one is the terminal's: Ctrl-C reaches the control process as a signal of its own.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import stat
import struct
from collections.abc import Callable
from pathlib import Path

from runtime.config.safety_yaml import EstopConfig, GpioConfig
from v2a.errors import ConfigError

# <linux/gpio.h>, the v2 interface: struct gpio_v2_line_request is 64 offsets, a consumer's name,
# the configuration (flags, and 10 attributes that stay empty), the number of lines, the size of the
# event buffer, padding, and the line's file descriptor, which the kernel fills in.
LINE_REQUEST = struct.Struct("=256s32sQ264sII20si")
_LINE_VALUES = struct.Struct("=QQ")  # struct gpio_v2_line_values: bits, mask
_GET_LINE = 0xC250B407
_GET_VALUES = 0xC010B40E
_INPUT, _PULL_UP = 1 << 2, 1 << 8


class Estop:
    """The inputs of `config`. Raises ConfigError where one can't be opened."""

    def __init__(self, config: EstopConfig) -> None:
        self._pressed: list[tuple[str, Callable[[], bool]]] = []
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            if config.socket is not None:
                datagram = opened.enter_context(_Datagram(config.socket))
                self._pressed.append((f"datagram to {config.socket}", datagram.pressed))
            if config.gpio is not None:
                line = opened.enter_context(_Line(config.gpio))
                self._pressed.append((f"{config.gpio.chip} line {config.gpio.line}", line.pressed))
            self._closing = opened.pop_all()

    def pressed(self) -> str | None:
        """Which input asks for a stop; None where none does. Never blocks."""
        return next((name for name, pressed in self._pressed if pressed()), None)

    def close(self) -> None:
        self._closing.close()


class _Datagram(contextlib.AbstractContextManager["_Datagram"]):
    """Any datagram to a socket of the file system is a stop."""

    def __init__(self, path: str) -> None:
        self._path = Path(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            # A run that was killed leaves its socket behind.
            if self._path.exists() and stat.S_ISSOCK(self._path.stat().st_mode):
                self._path.unlink()
            self._socket.bind(path)
        except OSError as error:
            self._socket.close()
            raise ConfigError(f"safety.estop.socket: {path}: {error.strerror}") from error
        self._socket.setblocking(False)

    def pressed(self) -> bool:
        try:
            self._socket.recv(1)
        except BlockingIOError:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        self._path.unlink(missing_ok=True)


def press(path: str) -> bool:
    """Ask the control loop that listens at `path` to stop; False where none does. Never blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"stop", path)
        except BlockingIOError:
            return True  # as many wait to be read as can: each of them is a stop
        except OSError:
            return False
    return True


def listening(path: str) -> bool:
    """Whether a control loop still listens at `path`; it ends that after its torque-off."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        return sender.connect_ex(path) == 0


class _Line(contextlib.AbstractContextManager["_Line"]):
    """A GPIO line with a pull-up and a contact to ground: high, so open, is a stop."""

    def __init__(self, config: GpioConfig) -> None:
        offsets = struct.pack("=I", config.line)
        request = bytearray(
            LINE_REQUEST.pack(offsets, b"v2a estop", _INPUT | _PULL_UP, b"", 1, 0, b"", 0)
        )
        try:
            with open(config.chip, "rb") as chip:
                fcntl.ioctl(chip, _GET_LINE, request)
        except OSError as error:
            raise ConfigError(
                f"safety.estop.gpio: {config.chip} line {config.line}: {error.strerror}; "
                "`gpioinfo` lists the chips and lines"
            ) from error
        self._fd = LINE_REQUEST.unpack(request)[-1]

    def pressed(self) -> bool:
        values = bytearray(_LINE_VALUES.pack(0, 1))
        fcntl.ioctl(self._fd, _GET_VALUES, values)
        return bool(_LINE_VALUES.unpack(values)[0] & 1)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)
