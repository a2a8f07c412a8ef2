"""Reads the records of one MCAP file, also of a damaged one, in bounded memory.

mcap's own readers end at the first damaged byte and trust every length in the file. This one checks
each length against the file, each chunk against its checksum, and goes on behind a damaged place.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import BinaryIO, Final, NamedTuple

import zstandard
from mcap.data_stream import ReadDataStream
from mcap.exceptions import McapError
from mcap.opcode import Opcode
from mcap.records import Chunk, Metadata
from mcap.writer import MCAP0_MAGIC

RECORD_MAX: Final = 128 * 1024 * 1024
"""Longest record, and longest content of a chunk, in bytes. Our own chunks have about 64 kB."""
CRC32: Final = "crc32"
"""Key of our metadata records: checksum of their other values, as hex digits."""

TOPICS: Final = "topics"
"""Key of our header: the topic of each channel, as "1=/frame,2=/state". The first chunk has the
channels too, but may be damaged."""

_HEAD: Final = struct.Struct("<BQ")
_MESSAGE: Final = struct.Struct("<HIQQ")
_CHANNEL: Final = struct.Struct("<HHI")
_FOOTER_BYTES: Final = _HEAD.size + 20 + len(MCAP0_MAGIC)
_WINDOW_BYTES: Final = 1 << 20
# What a record contains that is worth finding again behind a damaged place: these bytes, how far
# behind the start of the record, and the record's opcode.
_MARKS: Final = (
    (b"\x04\x00\x00\x00zstd", _HEAD.size + 28, Opcode.CHUNK),
    (b"\x03\x00\x00\x00v2a", _HEAD.size, Opcode.METADATA),
    (b"\x07\x00\x00\x00summary", _HEAD.size, Opcode.METADATA),
)
_KNOWN: Final = {int(opcode) for opcode in Opcode}
# What a damaged record raises; mcap asks for a damaged length, and then raises one of the last two.
_TORN: Final = (
    McapError,
    struct.error,
    ValueError,
    zstandard.ZstdError,
    MemoryError,
    OverflowError,
)


class RawMessage(NamedTuple):
    """A recorded message; `log_ns` is its time in the file."""

    topic: str
    log_ns: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Damage:
    """A place that cannot be read. Messages between the two log times may be missing."""

    file: str
    offset: int
    what: str
    after_ns: int | None  # None: from the start
    before_ns: int | None = None  # None: to the end


@dataclass(slots=True)
class FileState:
    """What a pass over a file found out about the file."""

    name: str
    whole: bool = False  # whether the file has its end
    damage: list[Damage] = field(default_factory=list)
    last_ns: int | None = None  # newest log time so far
    topics: dict[int, str] = field(default_factory=dict)  # channel -> topic

    def reached(self, first_ns: int, last_ns: int) -> None:
        """Note a sound chunk; the damage before it ends there."""
        self.damage = [
            place if place.before_ns is not None else _between(place, first_ns)
            for place in self.damage
        ]
        self.last_ns = max(last_ns, self.last_ns or 0)

    def broken(self, offset: int, what: str) -> None:
        """Note a damaged place."""
        self.damage.append(Damage(self.name, offset, what, self.last_ns))


def _between(place: Damage, next_ns: int) -> Damage:
    """`place` with its end. Threads write one file, so the next chunk may begin earlier."""
    if place.after_ns is None:
        return replace(place, before_ns=next_ns)
    first_ns, last_ns = sorted((place.after_ns, next_ns))
    return replace(place, after_ns=first_ns, before_ns=last_ns)


def walk(
    path: Path, state: FileState, wanted: Collection[str] | None
) -> Iterator[Metadata | RawMessage]:
    """Yield the metadata records and the messages of the topics `wanted` (None: all of them).

    Without any wanted topic, chunks are skipped unread and unchecked. Raises OSError if the file
    cannot be read.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        state.whole = _has_its_end(file, size)
        file.seek(0)
        if file.read(len(MCAP0_MAGIC)) != MCAP0_MAGIC:
            state.broken(0, "no MCAP file begins like this")
        crc = zlib.crc32(MCAP0_MAGIC)
        while True:
            offset = file.tell()
            opcode, length = _head(file)
            if opcode is None:
                if state.whole:
                    state.broken(offset, "no end of the data")
                return
            if length > min(size - file.tell(), RECORD_MAX) or opcode not in _KNOWN:
                if not _go_on_behind(file, state, offset, opcode, size):
                    return
                continue
            if opcode == Opcode.CHUNK and wanted is not None and not wanted:
                file.seek(length, os.SEEK_CUR)
                continue
            body = file.read(length)
            if opcode == Opcode.DATA_END:
                _check_end(file, state, body, crc, offset, bool(wanted is None or wanted))
                return
            crc = zlib.crc32(body, zlib.crc32(_HEAD.pack(opcode, length), crc))
            try:
                yield from _contents(opcode, body, state, wanted)
            except _TORN as error:
                # Its length may be wrong, too.
                if not _go_on_behind(file, state, offset, opcode, size, str(error)):
                    return


def _head(file: BinaryIO) -> tuple[int | None, int]:
    """Opcode and length of the next record; None where the file ends or a record just begins."""
    head = file.read(_HEAD.size)
    return _HEAD.unpack(head) if len(head) == _HEAD.size else (None, 0)


def _has_its_end(file: BinaryIO, size: int) -> bool:
    if size < _FOOTER_BYTES + len(MCAP0_MAGIC):
        return False
    file.seek(-_FOOTER_BYTES, os.SEEK_END)
    end = file.read()
    return end[:9] == _HEAD.pack(Opcode.FOOTER, 20) and end.endswith(MCAP0_MAGIC)


def _go_on_behind(
    file: BinaryIO, state: FileState, offset: int, opcode: int, size: int, why: str = ""
) -> bool:
    """Note a broken record, and move to the next one that can be found; False without one."""
    found = _next_record(file, offset + 1, size)
    if found is None and not state.whole and opcode == Opcode.MESSAGE_INDEX:
        return False  # the file ends in it: no message is missing
    reason = "a record's length or kind is wrong" if found or state.whole else "the file is cut off"
    state.broken(offset, why or reason)
    if found is not None:
        file.seek(found)
    return found is not None


def _next_record(file: BinaryIO, start: int, size: int) -> int | None:
    """Offset of the first record of `_MARKS` at or behind `start`."""
    at, before = start, b""
    file.seek(start)
    while window := file.read(_WINDOW_BYTES):
        text = before + window
        base = at - len(before)
        found = sorted(
            offset
            for mark, behind, opcode in _MARKS
            for offset in _places(text, mark, behind, base)
            if offset >= start and _plausible(file, offset, opcode, size)
        )
        if found:
            return found[0]
        at += len(window)
        before = text[-64:]
        file.seek(at)
    return None


def _places(text: bytes, mark: bytes, behind: int, base: int) -> Iterator[int]:
    at = text.find(mark)
    while at >= 0:
        yield base + at - behind
        at = text.find(mark, at + 1)


def _plausible(file: BinaryIO, offset: int, opcode: int, size: int) -> bool:
    if offset < 0:
        return False
    file.seek(offset)
    found, length = _head(file)
    return found == opcode and length <= min(size - offset - _HEAD.size, RECORD_MAX)


def _contents(
    opcode: int, body: bytes, state: FileState, wanted: Collection[str] | None
) -> Iterator[Metadata | RawMessage]:
    if opcode == Opcode.CHUNK:
        chunk = Chunk.read(ReadDataStream(BytesIO(body)))
        found = list(_messages(_unpacked(chunk), state.topics, wanted))
        state.reached(chunk.message_start_time, chunk.message_end_time)
        yield from found
    elif opcode in (Opcode.MESSAGE, Opcode.CHANNEL):  # a file without chunks
        yield from list(_messages(_HEAD.pack(opcode, len(body)) + body, state.topics, wanted))
    elif opcode == Opcode.MESSAGE_INDEX and len(body) != 6 + int.from_bytes(body[2:6], "little"):
        raise ValueError("wrong length of an index")
    elif opcode == Opcode.METADATA:
        stream = ReadDataStream(BytesIO(body))
        record = _checked(Metadata.read(stream))
        if stream.count != len(body):
            raise ValueError("wrong lengths in the metadata")
        for channel in filter(None, record.metadata.get(TOPICS, "").split(",")):
            number, topic = channel.split("=")
            state.topics[int(number)] = topic
        yield record


def _checked(record: Metadata) -> Metadata:
    if record.metadata.get(CRC32, checksum(record.metadata)) != checksum(record.metadata):
        raise ValueError(f"wrong checksum of the metadata {record.name!r}")
    return record


def checksum(metadata: dict[str, str]) -> str:
    """The value of `CRC32` for a metadata record."""
    texts = (f"{key}={value}\n" for key, value in metadata.items() if key != CRC32)
    return f"{zlib.crc32(''.join(texts).encode()):08x}"


def _unpacked(chunk: Chunk) -> bytes:
    size = chunk.uncompressed_size
    if size > RECORD_MAX:
        raise ValueError(f"it claims {size} bytes")
    data = chunk.data
    if chunk.compression == "zstd":
        # In one go only if the frame says its true size, which zstandard allocates at once.
        if zstandard.get_frame_parameters(data).content_size == size:
            data = zstandard.decompress(data)
        else:
            reader = zstandard.ZstdDecompressor(max_window_size=RECORD_MAX).stream_reader(data)
            data = reader.read(size + 1)
    elif chunk.compression:
        raise ValueError(f"unknown compression {chunk.compression!r}")
    if len(data) != size:
        raise ValueError("wrong length")
    if chunk.uncompressed_crc and zlib.crc32(data) != chunk.uncompressed_crc:
        raise ValueError("wrong checksum")
    return data


def _messages(
    data: bytes, topics: dict[int, str], wanted: Collection[str] | None
) -> Iterator[RawMessage]:
    at, end = 0, len(data)
    while at < end:
        opcode, length = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if length > end - at:
            raise ValueError("wrong length of a message")
        if opcode == Opcode.MESSAGE:
            channel, _, log_ns, _ = _MESSAGE.unpack_from(data, at)
            topic = topics.get(channel)
            if topic is None:
                raise ValueError(f"a message of the unknown channel {channel}")
            if wanted is None or topic in wanted:
                yield RawMessage(topic, log_ns, data[at + _MESSAGE.size : at + length])
        elif opcode == Opcode.CHANNEL:
            number, _, size = _CHANNEL.unpack_from(data, at)
            topics[number] = str(data[at + _CHANNEL.size :][:size], "utf-8")
        at += length


def _check_end(
    file: BinaryIO, state: FileState, body: bytes, crc: int, offset: int, all_read: bool
) -> None:
    """Compare the checksums of all data and of the index, where the file has them."""
    recorded = int.from_bytes(body[:4], "little")
    if all_read and recorded and recorded != crc and not state.damage:
        state.broken(offset, "a byte between the messages is wrong")
    if not state.whole:
        state.broken(offset, "the index at the end is cut off")
    else:
        size = os.fstat(file.fileno()).st_size
        rest = file.read(min(size - file.tell(), RECORD_MAX))
        recorded = int.from_bytes(rest[-12:-8], "little")
        if recorded and recorded != zlib.crc32(rest[:-12]):
            state.broken(offset, "the index at the end is wrong")
