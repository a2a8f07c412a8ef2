"""A pseudo terminal for a virtual bus, at a path that stays."""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import tty
from pathlib import Path

from v2a.errors import PortError

_READ_BYTES = 4096
_TERMINALS = "/dev/pts/"
# <asm-generic/termbits.h>: the ioctl that tells any rate, where `termios` knows only a few.
_TCGETS2 = 0x802C542A
_TERMIOS2 = struct.Struct("4I20B2I")  # four flags, line and c_cc, input and output rate


class Terminal:
    """The servos' end of a pseudo terminal. Programs open `link`, or `device` without one."""

    def __init__(self, link: Path | None) -> None:
        """Raises PortError where `link` cannot be made."""
        # The other end stays open here: without any opener, reads on this one fail.
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
        flags = fcntl.ioctl(self._other_end, _TCGETS2, bytes(_TERMIOS2.size))
        return int(_TERMIOS2.unpack(flags)[-1])

    def read(self) -> bytes:
        """What has come."""
        return os.read(self.fd, _READ_BYTES)

    def write(self, data: bytes) -> None:
        """Send `data`. A full terminal means that nobody reads: on a wire they are lost, too."""
        with contextlib.suppress(BlockingIOError):
            os.write(self.fd, data)

    def close(self) -> None:
        """Hang up: whoever has it open sees the port vanish."""
        if self._link and os.path.lexists(self._link) and os.readlink(self._link) == self.device:
            self._link.unlink()
        os.close(self.fd)
        os.close(self._other_end)


def _make_link(link: Path, device: str) -> None:
    try:
        if link.is_symlink() and os.readlink(link).startswith(_TERMINALS) and not link.exists():
            link.unlink()  # of a simulator that was killed
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
