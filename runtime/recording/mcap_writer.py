"""Writes the files of a recording: MCAP in chunks that stay readable after a crash.

A file's index grows in memory until the file ends, by about 18 kB a second. So a long recording is
split into several files, which also bounds the time that the end of a run takes.
"""

from __future__ import annotations

import importlib.util
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mcap.writer import Writer

from runtime.mailbox import FrameMsg
from runtime.recording.container import CRC32, checksum
from runtime.recording.container import TOPICS as TOPICS_KEY
from runtime.recording.header import Header
from runtime.recording.messages import to_json
from runtime.recording.pieces import piece
from runtime.recording.topics import TOPICS, timestamp
from runtime.summary_model import RunSummary
from v2a.install import install_hint
from v2a.output import say

CHUNK_BYTES: Final = 64 * 1024
HEADER, SUMMARY = "v2a", "summary"  # names of metadata records; each holds one JSON text
TEXT: Final = "json"
FILE_S: Final = 240.0
FILE_BYTES: Final = 1 << 30
# What a recording leaves free on its disk: this, or on a small disk the share.
KEEP_BYTES: Final = 256 << 20
KEEP_SHARE: Final = 0.05


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """The state of the files: why writing stopped, if it did, and how many messages were lost."""

    fault: str | None = None
    dropped: int = 0


class McapPiece:
    """One file of a recording, complete by itself."""

    def __init__(self, path: Path, header: Header, sequence: Counter[type]) -> None:
        """Create the file. Raises OSError if that fails."""
        self._header = header
        self._sequence = sequence  # goes on in the next file
        self._first_ns: int | None = None
        self._last_ns = 0
        self._file = path.open("xb")
        self._writer: Any = Writer(self._file, chunk_size=CHUNK_BYTES, enable_data_crcs=True)
        self._writer.start(library="v2a")
        self._channels = {
            kind: self._writer.register_channel(
                topic.name,
                "json",
                self._writer.register_schema(
                    topic.schema["title"], "jsonschema", to_json(topic.schema).encode()
                ),
            )
            for kind, topic in TOPICS.items()
        }
        self._add_header()
        self._file.flush()

    @property
    def full(self) -> bool:
        """Whether the next messages belong into a new file."""
        seconds = (self._last_ns - (self._first_ns or self._last_ns)) / 1e9
        return seconds >= FILE_S or self._file.tell() >= FILE_BYTES

    def add(self, message: Any) -> None:
        """Add a message of a kind in `TOPICS`."""
        kind = type(message)
        topic = TOPICS[kind]
        row = topic.row(message)
        if topic.stamp_ns is not None:
            row = {"timestamp": timestamp(self._header.log_ns(topic.stamp_ns(message)))} | row
        self._sequence[kind] += 1
        sequence = getattr(message, "seq", self._sequence[kind]) % 2**32
        log_ns = max(self._header.log_ns(topic.t_ns(message)), 0)
        data = to_json(row).encode()
        self._writer.add_message(self._channels[kind], log_ns, data, log_ns, sequence)
        self._first_ns = log_ns if self._first_ns is None else self._first_ns
        self._last_ns = log_ns

    def flush(self) -> None:
        """Make all messages so far readable, even if this process dies now."""
        self._writer.flush()

    def close(self, summary: str | None) -> None:
        """End the file, with a `SUMMARY` record if there is a text for it."""
        self._add_header()  # a second copy, in case the first one gets damaged
        if summary is not None:
            self._add_metadata(SUMMARY, {TEXT: summary})
        self._writer.finish()
        self._file.close()

    def abandon(self) -> None:
        """Close the file as it is."""
        with suppress(OSError):  # the rest that could not be flushed
            self._file.close()

    def _add_header(self) -> None:
        topics = ",".join(f"{self._channels[kind]}={TOPICS[kind].name}" for kind in TOPICS)
        self._add_metadata(HEADER, {TEXT: to_json(self._header), TOPICS_KEY: topics})

    def _add_metadata(self, name: str, content: dict[str, str]) -> None:
        self._writer.add_metadata(name, content | {CRC32: checksum(content)})


class McapFile:
    """Writes a new recording, file after file.

    After an error, and when the disk is nearly full, it stops writing. `status` then says why and
    counts the lost messages.
    """

    def __init__(self, folder: Path, header: Header) -> None:
        """Create the first file. Raises OSError if that fails."""
        self.status = WriterStatus()
        self._folder, self._header = folder, header
        self._unsafe = 0  # messages taken since the last flush
        self._sequence: Counter[type] = Counter()
        self._number = 0
        self._piece: McapPiece | None = McapPiece(piece(folder, 0), header, self._sequence)
        self._kinds = set(TOPICS)
        if importlib.util.find_spec("cv2") is None:
            self._kinds.remove(FrameMsg)
            missing = (
                f"pictures are not recorded: OpenCV is not installed; {install_hint('vision')}"
            )
            say(f"warning: {missing}")

    def take(self, message: object) -> None:
        """Write a message of a kind in `TOPICS`; skip any other kind."""
        if type(message) in self._kinds:
            self._unsafe += 1
            if self.status.fault is None:
                self._or_stop(lambda piece: piece.add(message))
            else:
                self._lose()

    def flush(self) -> None:
        """Make all messages so far readable. Begin a new file when this one is full."""
        if self.status.fault is not None:
            return
        self._or_stop(self._flush)
        self._unsafe = 0
        if too_full := _too_full(self._folder):
            self._stop(too_full)

    def close(self, ended: bool, summary: RunSummary | None) -> None:
        """End the file. If the run was killed, `ended` is False and no `SUMMARY` record is written.

        A run that has no summary writes an empty one.
        """
        text = to_json(summary or {}) if ended else None
        self._or_stop(lambda piece: piece.close(text))
        self._unsafe = 0

    def _flush(self, piece_: McapPiece) -> None:
        piece_.flush()
        if piece_.full:
            piece_.close(None)
            self._number += 1
            path = piece(self._folder, self._number)
            self._piece = McapPiece(path, self._header, self._sequence)

    def _or_stop(self, action: Callable[[McapPiece], object]) -> None:
        if self._piece is None:
            return
        try:
            action(self._piece)
        except OSError as error:
            self._piece.abandon()
            self._piece = None
            self._stop(error.strerror or str(error))

    def _stop(self, why: str) -> None:
        if self.status.fault is None:
            fault = f"{self._folder}: recording stopped: {why}"
            self.status = WriterStatus(fault, self.status.dropped)
        self._lose()

    def _lose(self) -> None:
        self.status = WriterStatus(self.status.fault, self.status.dropped + self._unsafe)
        self._unsafe = 0


def _too_full(folder: Path) -> str | None:
    """Say so if the disk has no room left but what other programs need."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError as error:  # somebody removed the folder
        return f"{folder}: {error.strerror}"
    keep = min(KEEP_BYTES, round(KEEP_SHARE * disk.total))
    if disk.free >= keep:
        return None
    return f"only {disk.free >> 20} MB are free on the disk, and {keep >> 20} MB are kept free"
