"""Recorded pictures as a camera: each picture comes at the time that its file gives it."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path
from typing import Final

from hw_drivers.cameras.camera import CameraReport, Frame, Image, Request
from hw_drivers.cameras.foreign import ForeignThread
from hw_drivers.cameras.pictures import rgb_of
from hw_drivers.cameras.readers import (
    Reader,
    SequenceReader,
    find_pictures,
    is_pattern,
    open_video,
)
from v2a.errors import CameraEnded, CameraError

OPEN_S: Final = 10.0  # an idle disk may have to spin up, and PyAV to be imported
_MISSING_MAX: Final = 1  # some containers list one picture more than they hold
_DROPS_BEFORE_SLOWING: Final = 3


class FileCamera:
    """A file as a camera. Picture k comes at its own time stamp, counted from the first read.

    Pictures without time stamps come at robot.yaml's rate. A picture that is late by more than its
    period is dropped. If dropping does not help, decoding itself is too slow: the file then plays
    more slowly.
    """

    def __init__(
        self,
        name: str,
        reader: Reader,
        request: Request,
        thread: ForeignThread,
        first_stamp_s: float | None = None,
    ) -> None:
        self._name = name
        self._reader = reader
        self._thread = thread
        self._clock = request.clock
        self._timeout_s = request.timeout_s
        self._period_s = 1.0 / request.fps
        self._start_ns: int | None = None
        self._grabbed = first_stamp_s is not None  # a picture waits to be delivered
        self._seq = 0 if self._grabbed else -1
        self._first_stamp_s = self._stamp_s = math.nan if first_stamp_s is None else first_stamp_s
        self._offset_s = self._gap_s = self._gap_max_s = 0.0
        self.report = CameraReport(facts={"source": name, "decoder": reader.decoder})

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`."""
        self._timeout_s = timeout_s
        if self._start_ns is None:
            self._start_ns = self._clock.now_ns()
        due_ns, image = self._thread.call(partial(self._next, timeout_s), timeout_s, "no picture")
        self._clock.sleep_until_ns(due_ns)
        return Frame(self._seq, due_ns, 0, image)

    def close(self) -> None:
        """See `Camera`."""
        self._thread.end(self._reader.close, self._timeout_s)

    def _next(self, timeout_s: float) -> tuple[int, Image]:
        """Return when the next picture is due, and the picture. Runs in the foreign thread."""
        if not self._grabbed:
            self._grab()
        self._catch_up()
        if self._due_ns() > self._clock.now_ns() + timeout_s * 1e9:
            raise CameraError(
                f"{self._name}: no frame within {timeout_s:g} s; one is due every "
                f"{self._gap_s:g} s here"
            )
        bgr = self._reader.retrieve()
        if bgr is None:
            raise CameraError(f"{self._name}: picture {self._seq} cannot be decoded; {self._fix()}")
        self._grabbed = False
        self.report.facts.setdefault("size", f"{bgr.shape[1]}x{bgr.shape[0]}")
        return self._due_ns(), rgb_of(bgr)

    def _grab(self) -> None:
        """Go to the next picture. Raises CameraEnded at the end, CameraError if it is too early."""
        stamp_s = self._reader.grab()
        if stamp_s is None:
            raise self._end()
        self._seq += 1
        self._grabbed = True
        if self._seq == 0:
            self._first_stamp_s = self._stamp_s = stamp_s
            return
        offset_s = stamp_s - self._first_stamp_s
        if not stamp_s > self._stamp_s:  # NaN, or a stamp that stands still or goes back
            offset_s = self._offset_s + self._period_s
        self._note_pace(stamped=stamp_s > self._stamp_s)
        self._stamp_s = stamp_s
        self._gap_s = offset_s - self._offset_s
        self._gap_max_s = max(self._gap_max_s, self._gap_s)
        self._offset_s = offset_s

    def _catch_up(self) -> None:
        """Drop pictures that are late by more than a period, or slow the file down."""
        first_late_s, drops = self._late_s(), 0
        while (late_s := self._late_s()) > max(self._gap_s, 1e-3) and self._gap_s > 0:
            if drops >= _DROPS_BEFORE_SLOWING and late_s >= first_late_s:
                self._slow_down(late_s)
                return
            drops += 1
            self.report.counts["dropped_late"] += 1
            self._grab()

    def _slow_down(self, late_s: float) -> None:
        assert self._start_ns is not None
        self._start_ns += round(late_s * 1e9)
        if not self.report.counts["slowed"]:
            self._remark("decoding is slower than the video, so it plays slowly; use a smaller one")
        self.report.counts["slowed"] += 1

    def _due_ns(self) -> int:
        return (self._start_ns or 0) + round(self._offset_s * 1e9)

    def _late_s(self) -> float:
        return (self._clock.now_ns() - self._due_ns()) / 1e9

    def _note_pace(self, *, stamped: bool) -> None:
        """Say once what sets the pace. The second picture decides."""
        if "pace" in self.report.facts:
            return
        rate = f"camera.fps, {1 / self._period_s:g} Hz"
        self.report.facts["pace"] = "time stamps" if stamped else rate
        if not stamped and not isinstance(self._reader, SequenceReader):
            self._remark(f"its pictures have no time stamps, so they come at {rate}")

    def _remark(self, text: str) -> None:
        self.report.remarks.append((self._clock.now_ns(), f"{self._name}: {text}"))

    def _end(self) -> CameraError:
        """Return the end, or the error of a file that ends before its container says."""
        count, total = self._seq + 1, self._reader.total
        missing_s = self._reader.duration_s - self._offset_s - self._gap_max_s
        # Containers without an index estimate the count. Then only the time is right.
        if total - count > _MISSING_MAX and missing_s > 1e-3:
            return CameraError(
                f"{self._name}: ended after {count} of {total} frames: the file is cut off or "
                f"damaged there; {self._fix()}"
            )
        return CameraEnded(f"{self._name}: ended after {count} frames")

    def _fix(self) -> str:
        return (
            "get it again, or keep what can be read: "
            f"`ffmpeg -i {self._name} -c:v libx264 -pix_fmt yuv420p converted.mp4`"
        )


def open_file(source: str, request: Request) -> FileCamera:
    """Open a video file, a folder of pictures or a pattern. `fps` counts without time stamps."""
    path = Path(source.removeprefix("file:")).expanduser()
    name = str(path)
    thread = ForeignThread(name, "check that its disk or network drive answers")

    def open_it() -> tuple[Reader, float]:
        if path.is_dir() or (is_pattern(path) and not path.exists()):
            reader = SequenceReader(find_pictures(path))
            reader.grab()
            return reader, math.nan
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "no such file"
            raise CameraError(f"{path}: {what}; expected a video file")
        return open_video(name)

    try:
        opens_within_s = max(request.timeout_s, OPEN_S)
        reader, stamp_s = thread.call(open_it, opens_within_s, "did not open")
    except CameraError:
        thread.end(lambda: None, request.timeout_s)
        raise
    return FileCamera(name, reader, request, thread, stamp_s)
