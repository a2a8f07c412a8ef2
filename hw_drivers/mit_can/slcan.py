"""CAN frames on a serial line, as slcan (LAWICEL) adapters speak it: a line of ASCII each.

    t III L DD..DD CR      standard frame: 11-bit id (3 hex digits), length, that many bytes
    T IIIIIIII L DD.. CR   extended frame: 29-bit id (8 hex digits)

The adapter answers CR, or BEL where it refuses. There is no checksum on the serial line; the CAN
side has its own. Source: LAWICEL "CAN232 Version 3 manual"; python-can speaks the same.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

END, REFUSED = b"\r", b"\a"
# Bit rate of the CAN bus -> its command. S7 is 750 kbit/s on some adapters and 800 on others.
BIT_RATES = {
    10_000: b"S0",
    20_000: b"S1",
    50_000: b"S2",
    100_000: b"S3",
    125_000: b"S4",
    250_000: b"S5",
    500_000: b"S6",
    1_000_000: b"S8",
}

_MAX_LINE = len("T") + 8 + 1 + 2 * 8
_STANDARD = re.compile(rb"t([0-9A-Fa-f]{3})([0-8])((?:[0-9A-Fa-f]{2})*)")
_EXTENDED = re.compile(rb"T([0-9A-Fa-f]{8})([0-8])((?:[0-9A-Fa-f]{2})*)")


@dataclass(frozen=True, slots=True)
class CanFrame:
    """A data frame: id of 11 bits, or of 29 where `extended`; 0 to 8 bytes."""

    id: int
    data: bytes
    extended: bool = False


def make_open(bit_rate: int = 1_000_000) -> bytes:
    """Bring the adapter on the bus. Closes first: an open one refuses a new bit rate."""
    if bit_rate not in BIT_RATES:
        raise ValueError(f"an slcan adapter has no {bit_rate} bit/s; take one of {list(BIT_RATES)}")
    return b"".join(command + END for command in (b"C", BIT_RATES[bit_rate], b"O"))


def make_close() -> bytes:
    """Take the adapter off the bus."""
    return b"C" + END


def make_frame(frame: CanFrame) -> bytes:
    """The line that sends `frame`. Raises ValueError where it is no CAN frame."""
    digits, letter = (8, "T") if frame.extended else (3, "t")
    if len(frame.data) > 8 or not 0 <= frame.id < 1 << (29 if frame.extended else 11):
        raise ValueError(f"not a CAN frame: {frame}; ids have 11 bits (extended: 29), data 8 bytes")
    line = f"{letter}{frame.id:0{digits}X}{len(frame.data)}{frame.data.hex().upper()}"
    return line.encode() + END


class FrameParser:
    """CAN frames out of what a port received, in any pieces. Acknowledgements, noise and broken
    lines are skipped; `refused` counts the commands that the adapter did not take."""

    def __init__(self) -> None:
        self.refused = 0
        self._line = bytearray()

    def feed(self, data: bytes) -> list[CanFrame]:
        """The frames that `data` completes."""
        frames: list[CanFrame] = []
        for byte in data:
            if byte == END[0]:
                if frame := _frame_at_end(bytes(self._line)):
                    frames.append(frame)
                self._line.clear()
            elif byte == REFUSED[0]:
                self.refused += 1
                self._line.clear()
            else:
                self._line.append(byte)
                del self._line[:-_MAX_LINE]
        return frames


def _frame_at_end(line: bytes) -> CanFrame | None:
    """The frame that the line ends with: a frame's own bytes hold no second t or T."""
    start = max(line.rfind(b"t"), line.rfind(b"T"))
    if start < 0:
        return None
    extended = line[start : start + 1] == b"T"
    match = (_EXTENDED if extended else _STANDARD).fullmatch(line, start)
    if match is None or len(match[3]) != 2 * int(match[2]):
        return None
    return CanFrame(int(match[1], 16), bytes.fromhex(match[3].decode()), extended)
