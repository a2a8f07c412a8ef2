"""Emergency stop inputs: a datagram socket, a GPIO line and the live page.

The control loop asks them at each tick, so they work while the policy hangs. Another input is
Ctrl-C, which reaches the control process as a signal.
"""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable
from pathlib import Path

from runtime.config.safety_yaml import EstopConfig, GpioConfig
from v2a.bound_socket import BoundSocket, PathInUseError
from v2a.errors import ConfigError
from v2a.install import install_hint


class Estop:
    """The emergency stop inputs of `config`, and the live page's if there is one.

    Each input returns who asks for a stop, or None. An input that is lost asks for one: nobody
    could press it any more. Raises ConfigError if one can't be opened.
    """

    def __init__(self, config: EstopConfig, page: Callable[[], str | None] | None = None) -> None:
        self._inputs = [page] if page is not None else []
        self._closing = contextlib.ExitStack()
        with contextlib.ExitStack() as opened:
            if config.socket is not None:
                datagram = opened.enter_context(_Datagram(config.socket))
                self._inputs.append(datagram.pressed)
            if config.gpio is not None:
                line = opened.enter_context(_Line(config.gpio))
                self._inputs.append(line.pressed)
            self._closing = opened.pop_all()

    def pressed(self) -> str | None:
        """Return which input asks for a stop; None if none does. Never blocks."""
        return next((source for each in self._inputs if (source := each())), None)

    def close(self) -> None:
        """Close the inputs. A second call does nothing."""
        self._closing.close()


class _Datagram(contextlib.AbstractContextManager["_Datagram"]):
    """A socket in the file system. Any datagram to it is a stop.

    So is a path that no longer leads to this socket.
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
            reason = error.strerror or str(error)
            if error.errno == errno.EADDRINUSE:
                reason = "something that is no socket is there"
            raise ConfigError(
                f"safety.estop.socket: {path}: {reason}; name a new path in a folder that you may "
                "write"
            ) from error
        self._bound.socket.setblocking(False)

    def pressed(self) -> str | None:
        try:
            self._bound.socket.recv(1)
        except BlockingIOError:
            return None if self._bound.is_ours else f"the loss of {self._bound.path}"
        return f"datagram to {self._bound.path}"

    def __exit__(self, *_: object) -> None:
        self._bound.close()


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
        self._name = f"{config.chip} line {config.line}"

    def pressed(self) -> str | None:
        try:
            closed = self._request.get_value(self._line) is self._low
        except OSError:
            return f"{self._name}, which can't be read"
        return None if closed else self._name

    def __exit__(self, *_: object) -> None:
        self._request.release()
