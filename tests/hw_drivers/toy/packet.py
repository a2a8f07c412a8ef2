"""The packets of the toy family, a servo family that exists only in tests: lines of text.

    ?ID,ADDRESS,SIZE             read          =ID,ERROR,DATA    the answer to either
    !ID,ADDRESS,DATA             write
    #ADDRESS,ID,DATA,ID,DATA..   write to many; nobody answers

Every number is two hexadecimal digits, and DATA is as many numbers as it takes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

MAX_ID = 9
REFUSED, ALARM = 0x01, 0x80  # bits of ERROR
_STATUS = re.compile(r"=([0-9A-F]{2}),([0-9A-F]{2}),((?:[0-9A-F]{2})*)")


class Status(NamedTuple):
    id: int
    error: int
    params: bytes


def make_read(servo_id: int, address: int, size: int) -> bytes:
    return f"?{servo_id:02X},{address:02X},{size:02X}\n".encode()


def make_ping(servo_id: int) -> bytes:
    """A read of model number and firmware version, the first three registers."""
    return make_read(servo_id, 0, 3)


def make_write(servo_id: int, address: int, data: bytes) -> bytes:
    return f"!{servo_id:02X},{address:02X},{data.hex().upper()}\n".encode()


def make_sync_write(address: int, size: int, data: Mapping[int, bytes]) -> bytes:
    blocks = "".join(f",{servo_id:02X},{block.hex().upper()}" for servo_id, block in data.items())
    return f"#{address:02X}{blocks}\n".encode()


def make_status(servo_id: int, error: int, params: bytes = b"") -> bytes:
    return f"={servo_id:02X},{error:02X},{params.hex().upper()}\n".encode()


class Lines:
    """Whole lines out of a byte stream."""

    def __init__(self) -> None:
        self._rest = ""

    def feed(self, data: bytes) -> list[str]:
        *lines, self._rest = (self._rest + data.decode("ascii", "replace")).split("\n")
        return lines


class StatusParser:
    """Answers out of a byte stream."""

    def __init__(self) -> None:
        self._lines = Lines()

    def feed(self, data: bytes) -> list[Status]:
        found = map(_STATUS.fullmatch, self._lines.feed(data))
        return [
            Status(int(match[1], 16), int(match[2], 16), bytes.fromhex(match[3]))
            for match in found
            if match
        ]
