"""Writes the file of a recording: MCAP in chunks that stay readable after a crash."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from mcap.writer import Writer

from runtime.mailbox import FrameMsg
from runtime.recording.header import Header
from runtime.recording.messages import to_json
from runtime.recording.topics import TOPICS
from runtime.summary_model import RunSummary
from v2a.output import say

CHUNK_BYTES: Final = 64 * 1024
HEADER, SUMMARY = "v2a", "summary"  # names of metadata records; each holds one JSON text
TEXT: Final = "json"
NO_OPENCV: Final = (
    "warning: pictures are not recorded: OpenCV is not installed; run: pip install '.[vision]'"
)


@dataclass(frozen=True, slots=True)
class WriterStatus:
    """The state of the file: why writing stopped, if it did, and how many messages were lost."""

    fault: str | None = None
    dropped: int = 0


class McapFile:
    """Writes one new file.

    After an error, such as a full disk, it stops writing. `status` then says why and counts the
    lost messages.
    """

    def __init__(self, path: Path, header: Header) -> None:
        """Create the file. Raises OSError if that fails."""
        self.status = WriterStatus()
        self._path = path
        self._unsafe = 0  # messages taken since the last flush
        self._file = path.open("xb")
        self._writer = Writer(self._file, chunk_size=CHUNK_BYTES)
        self._writer.start(library="v2a")
        self._writer.add_metadata(HEADER, {TEXT: to_json(header)})
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
        if importlib.util.find_spec("cv2") is None:
            del self._channels[FrameMsg]
            say(NO_OPENCV)
        self._file.flush()

    def take(self, message: object) -> None:
        """Write a message of a kind in `TOPICS`; skip any other kind."""
        if type(message) in self._channels:
            self._unsafe += 1
            self._or_stop(lambda: self._add(message))

    def flush(self) -> None:
        """Make all messages so far readable, even if this process dies now."""
        self._or_stop(self._writer.flush)
        self._unsafe = 0

    def close(self, ended: bool, summary: RunSummary | None) -> None:
        """End the file. If the run was killed, `ended` is False and no `SUMMARY` record is written.

        A run that has no summary writes an empty one.
        """
        if ended:
            text = to_json(summary or {})
            self._or_stop(lambda: self._writer.add_metadata(SUMMARY, {TEXT: text}))
        self._or_stop(self._writer.finish)
        self._or_stop(self._file.close)

    def _add(self, message: object) -> None:
        topic = TOPICS[type(message)]
        t_ns = topic.t_ns(message)
        data = to_json(topic.row(message)).encode()
        self._writer.add_message(self._channels[type(message)], t_ns, data, t_ns)

    def _or_stop(self, action: Callable[[], object]) -> None:
        try:
            if self.status.fault is None:
                action()
                return
        except OSError as error:
            text = f"{self._path.parent}: recording stopped: {error.strerror or error}"
            self.status = WriterStatus(text, self.status.dropped)
            with suppress(OSError):  # the rest that could not be flushed
                self._file.close()
        self.status = WriterStatus(self.status.fault, self.status.dropped + self._unsafe)
        self._unsafe = 0
