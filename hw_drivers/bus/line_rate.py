"""Sets any bit rate on an open terminal, by the kernel's own interface.

`termios` knows only some rates. pyserial passes the others to tcsetattr() as BOTHER, which glibc
refuses since version 2.42 (pyserial/pyserial#805).
"""

from __future__ import annotations

import fcntl
import struct
import termios
from typing import Final

# <asm-generic/termbits.h> and <asm-generic/ioctls.h>
_TCGETS2, _TCSETS2 = 0x802C542A, 0x402C542B
_TERMIOS2: Final = struct.Struct("4I20B2I")  # four flags, line and c_cc, input and output rate
_CFLAG, _INPUT_RATE, _OUTPUT_RATE = 2, 24, 25
_CBAUD, _BOTHER, _INPUT_SHIFT = 0o010017, 0o010000, 16


def is_standard(baud: int) -> bool:
    """Whether `termios` has a constant for this rate."""
    return hasattr(termios, f"B{baud}")


def get_baud(fd: int) -> int:
    """The rate of the terminal in bit/s, as its driver reports it. Raises OSError."""
    return int(_TERMIOS2.unpack(fcntl.ioctl(fd, _TCGETS2, bytes(_TERMIOS2.size)))[_OUTPUT_RATE])


def set_baud(fd: int, baud: int) -> None:
    """Set the rate of the terminal to `baud` bit/s. Raises OSError if its driver refuses."""
    fields = list(_TERMIOS2.unpack(fcntl.ioctl(fd, _TCGETS2, bytes(_TERMIOS2.size))))
    fields[_CFLAG] &= ~(_CBAUD | _CBAUD << _INPUT_SHIFT)  # no input rate: it is the output's
    fields[_CFLAG] |= _BOTHER
    fields[_INPUT_RATE] = fields[_OUTPUT_RATE] = baud
    fcntl.ioctl(fd, _TCSETS2, _TERMIOS2.pack(*fields))
