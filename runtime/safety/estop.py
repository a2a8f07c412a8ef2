"""Emergency stop inputs: a datagram socket and a GPIO line.

The control loop asks them at each tick, so they work while the policy hangs. A third input is
Ctrl-C, which reaches the control process as a signal.
"""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable
from pathlib import Path

from runtime.config.safety_yaml import EstopConfig, GpioConfig
from v2a import bound_socket
from v2a.bound_socket import BoundSocket, PathInUseError
from v2a.errors import ConfigError
from v2a.install import install_hint


class Estop:
    """The emergency stop inputs of `config`. Raises ConfigError if one can't be opened."""

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
        """The name of an input that asks for a stop; None if none does. Never blocks."""
        return next((name for name, pressed in self._pressed if pressed()), None)

    def close(self) -> None:
        """Close the inputs. A second call does nothing."""
        self._closing.close()


class _Datagram(contextlib.AbstractContextManager["_Datagram"]):
    """A socket in the file system. Any datagram to it is a stop.

    So is a path that no longer leads to this socket: nobody could press it any more.
    """

    def __init__(self, path: str) -> None:
        try:
            self._bound = BoundSocket(Path(path))
        except PathInUseError as error:
            raise ConfigError(
                f"safety.estop.socket: {path}: {error.strerror}; end that run, or give each robot "
                "a path of its own"
            ) from error
        except OSError as error:
            raise ConfigError(f"safety.estop.socket: {path}: {error.strerror}") from error
        self._bound.socket.setblocking(False)

    def pressed(self) -> bool:
        try:
            self._bound.socket.recv(1)
        except BlockingIOError:
            return not self._bound.is_ours
        return True

    def __exit__(self, *_: object) -> None:
        self._bound.close()


def press(path: str) -> bool:
    """Ask the control loop that listens at `path` to stop; False if none does. Never blocks."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"stop", path)
        except BlockingIOError:
            return True  # the queue is full of datagrams, and each of them is a stop
        except OSError:
            return False
    return True


def listening(path: str) -> bool:
    """Whether a control loop listens at `path`. It stops listening after its torque-off."""
    return bound_socket.listening(Path(path))


class _Line(contextlib.AbstractContextManager["_Line"]):
    """A GPIO line with a pull-up and a contact to ground. An open contact is a stop.

    So is a line that can't be read any more, e.g. because its chip was unplugged.
    """

    def __init__(self, config: GpioConfig) -> None:
        where = f"safety.estop.gpio: {config.chip} line {config.line}"
        try:
            import gpiod
            from gpiod.line import Bias, Direction, Value
        except ModuleNotFoundError:
            fix = install_hint("gpio")
            raise ConfigError(f"{where}: gpiod is not installed; {fix}") from None
        settings = gpiod.LineSettings(direction=Direction.INPUT, bias=Bias.PULL_UP)
        try:
            self._request = gpiod.request_lines(
                config.chip, {config.line: settings}, consumer="v2a estop"
            )
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else str(error)
            fix = "`gpioinfo` lists the chips and lines"
            raise ConfigError(f"{where}: {reason or error}; {fix}") from error
        self._line, self._low = config.line, Value.INACTIVE

    def pressed(self) -> bool:
        try:
            return self._request.get_value(self._line) is not self._low
        except OSError:
            return True

    def __exit__(self, *_: object) -> None:
        self._request.release()
