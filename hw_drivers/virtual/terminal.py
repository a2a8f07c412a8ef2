"""A pseudo terminal for a virtual bus, at a fixed path."""

from __future__ import annotations

import contextlib
import os
import tty
from pathlib import Path

from hw_drivers.bus.line_rate import get_baud
from v2a.errors import PortError

_READ_BYTES = 4096
_TERMINALS = "/dev/pts/"


class Terminal:
    """The servos' end of a pseudo terminal. Programs open `link`, or `device` without a link."""

    def __init__(self, link: Path | None) -> None:
        """Open the terminal. Raises PortError if `link` cannot be made."""
        # The other end stays open here: if nobody has it open, reads on this end fail.
        self.fd, self._other_end = os.openpty()
        os.set_blocking(self.fd, False)
        tty.setraw(self._other_end)
        self.device = os.ttyname(self._other_end)
        self._link = link
        if link:
            try:
                _make_link(link, self.device)
            except BaseException:
                self._link = None
                self.close()
                raise

    def baud(self) -> int:
        """The rate that the program at the other end has set, in bit/s."""
        return get_baud(self._other_end)

    def read(self) -> bytes:
        """Read the bytes that have arrived."""
        return os.read(self.fd, _READ_BYTES)

    def write(self, data: bytes) -> None:
        """Send `data`. If the terminal is full, nobody reads it, and the bytes are lost."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.fd, data)

    def close(self) -> None:
        """Hang up. A program that has the port open sees it vanish."""
        if self._link and os.path.lexists(self._link) and os.readlink(self._link) == self.device:
            self._link.unlink()
        os.close(self.fd)
        os.close(self._other_end)


def _make_link(link: Path, device: str) -> None:
    try:
        if link.is_symlink() and os.readlink(link).startswith(_TERMINALS) and not link.exists():
            link.unlink()  # left behind by a killed simulator
        link.symlink_to(device)
    except FileExistsError as error:
        what = "exists and is no link; remove it"
        if link.is_symlink():
            what = f"leads to {os.readlink(link)}; end the simulator that made it, or remove it"
        raise PortError(f"{link}: {what}, or choose another path") from error
    except OSError as error:
        raise PortError(
            f"{link}: no link can be made there: {error.strerror}; choose another path"
        ) from error
