"""Reads from the index at the end of an MCAP file how much is in it, without reading the messages.

The file's own checksums decide: one of all data, and one of the index. If one of them is missing or
wrong, there is no answer, and the messages must be read.
"""

from __future__ import annotations

import os
import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Channel, Footer, Statistics
from mcap.writer import MCAP0_MAGIC

INDEX_MAX: Final = 128 * 1024 * 1024
_HEAD: Final = struct.Struct("<BQ")
_FOOTER_BYTES: Final = _HEAD.size + 20 + len(MCAP0_MAGIC)
_DATA_END_BYTES: Final = _HEAD.size + 4
_READ_BYTES: Final = 1 << 20


class Counted(NamedTuple):
    """What a sound file has: topic -> number of messages, and the log times of the ends."""

    messages: dict[str, int]
    first_ns: int | None  # None: there are no messages
    last_ns: int | None


def counted(path: Path) -> Counted | None:
    """Count the messages of the file at `path`; None if its checksums do not vouch for it.

    Raises OSError if the file cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        try:
            index = _sound_index(file, size)
            return None if index is None else _counted(index)
        except (McapError, struct.error, ValueError, OverflowError, LookupError, MemoryError):
            return None


def _sound_index(file: BinaryIO, size: int) -> bytes | None:
    """The records of the index, if both checksums are right."""
    if size < _FOOTER_BYTES + _DATA_END_BYTES:
        return None
    file.seek(size - _FOOTER_BYTES)
    end = file.read(_FOOTER_BYTES)
    if end[: _HEAD.size] != _HEAD.pack(Opcode.FOOTER, 20) or not end.endswith(MCAP0_MAGIC):
        return None
    footer = Footer.read(ReadDataStream(BytesIO(end[_HEAD.size :])))
    data_end = footer.summary_start - _DATA_END_BYTES
    if not (len(MCAP0_MAGIC) <= data_end and 0 < size - footer.summary_start <= INDEX_MAX):
        return None
    file.seek(0)
    crc = _crc(file, data_end)
    last = file.read(_DATA_END_BYTES)
    index = file.read(size - footer.summary_start)
    data_is_sound = last == _HEAD.pack(Opcode.DATA_END, 4) + crc.to_bytes(4, "little")
    index_is_sound = footer.summary_crc == zlib.crc32(index[:-12])
    # A checksum of 0 says that there is none.
    if not (crc and footer.summary_crc and data_is_sound and index_is_sound):
        return None
    return index[:-_FOOTER_BYTES]


def _crc(file: BinaryIO, length: int) -> int:
    crc = 0
    while length > 0 and (part := file.read(min(length, _READ_BYTES))):
        crc = zlib.crc32(part, crc)
        length -= len(part)
    return crc


def _counted(index: bytes) -> Counted | None:
    topics: dict[int, str] = {}
    found: Statistics | None = None
    at = 0
    while at < len(index):
        opcode, length = _HEAD.unpack_from(index, at)
        at += _HEAD.size
        if length > len(index) - at:
            return None
        if opcode in (Opcode.CHANNEL, Opcode.STATISTICS):
            stream = ReadDataStream(BytesIO(index[at : at + length]))
            if opcode == Opcode.CHANNEL:
                channel = Channel.read(stream)
                topics[channel.id] = channel.topic
            else:
                found = Statistics.read(stream)
        at += length
    if found is None or sum(found.channel_message_counts.values()) != found.message_count:
        return None
    messages = {topics[number]: n for number, n in found.channel_message_counts.items()}
    if not found.message_count:
        return Counted(messages, None, None)
    return Counted(messages, found.message_start_time, found.message_end_time)
