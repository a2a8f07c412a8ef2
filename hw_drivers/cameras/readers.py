"""Readers of recorded pictures: OpenCV and PyAV for videos, and single pictures in order."""

from __future__ import annotations

import math
import re
import sys
from pathlib import Path
from typing import Any, Final, Protocol

import cv2

from hw_drivers.cameras.pictures import Picture
from v2a.errors import CameraError

PICTURES: Final = (".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp")
_NUMBER: Final = re.compile(r"(\d+)")
_PATTERN: Final = re.compile(r"%0?(\d*)d")


class Reader(Protocol):
    """Pictures in order. `total` and `duration_s` are what the container lists, 0 if nothing."""

    decoder: str
    total: int
    duration_s: float

    def grab(self) -> float | None:
        """Go to the next picture. Returns its time stamp in s, NaN without one; None at the end."""
        ...

    def retrieve(self) -> Picture | None:
        """Return the picture, uint8 [H, W, 3] BGR, or None if it cannot be decoded."""
        ...

    def close(self) -> None:
        """Close the file."""
        ...


class OpenCvReader:
    """A video that OpenCV decodes."""

    decoder = "OpenCV"

    def __init__(self, capture: cv2.VideoCapture) -> None:
        self._capture = capture
        total, fps = capture.get(cv2.CAP_PROP_FRAME_COUNT), capture.get(cv2.CAP_PROP_FPS)
        # OpenCV makes up a huge negative count for a raw stream.
        self.total = int(total) if math.isfinite(total) and 0 < total < 1e9 else 0
        self.duration_s = self.total / fps if math.isfinite(fps) and fps > 0 else 0.0

    def grab(self) -> float | None:
        """See `Reader`."""
        if not self._capture.grab():
            return None
        return float(self._capture.get(cv2.CAP_PROP_POS_MSEC)) / 1e3

    def retrieve(self) -> Picture | None:
        """See `Reader`."""
        decoded, bgr = self._capture.retrieve()
        return bgr if decoded else None

    def close(self) -> None:
        """See `Reader`."""
        self._capture.release()


class PyAvReader:
    """A video that PyAV decodes. It brings codecs that OpenCV's wheels lack, such as AV1."""

    decoder = "PyAV"

    def __init__(self, path: str) -> None:
        import av  # an optional package

        self._errors: Any = (av.error.FFmpegError, EOFError)
        self._container = av.open(path)
        if not self._container.streams.video:
            raise CameraError(f"{path}: has no video stream; expected a video file")
        stream = self._container.streams.video[0]
        self.total = stream.frames
        self.duration_s = (self._container.duration or 0) / 1e6
        self._frames = self._container.decode(stream)
        self._frame: Any = None

    def grab(self) -> float | None:
        """See `Reader`. Damaged data is the end; `FileCamera` finds out whether it is too early."""
        try:
            self._frame = next(self._frames, None)
        except self._errors:
            return None
        if self._frame is None:
            return None
        time_s = self._frame.time
        return math.nan if time_s is None else float(time_s)

    def retrieve(self) -> Picture | None:
        """See `Reader`."""
        bgr: Picture = self._frame.to_ndarray(format="bgr24")
        return bgr

    def close(self) -> None:
        """See `Reader`."""
        self._container.close()


class SequenceReader:
    """Single pictures, one file each, without time stamps."""

    decoder = "OpenCV"
    duration_s = 0.0

    def __init__(self, paths: list[Path]) -> None:
        self._paths = paths
        self.total = len(paths)
        self._next = 0

    def grab(self) -> float | None:
        """See `Reader`."""
        self._next += 1
        return math.nan if self._next <= self.total else None

    def retrieve(self) -> Picture:
        """See `Reader`. Raises CameraError, which names the picture, if it cannot be decoded."""
        path = self._paths[self._next - 1]
        bgr = cv2.imread(str(path), cv2.IMREAD_COLOR)
        if bgr is None:
            raise CameraError(
                f"{path}: is not a picture that OpenCV can read; remove or convert it"
            )
        return bgr

    def close(self) -> None:
        """See `Reader`. There is nothing to close."""


def find_pictures(path: Path) -> list[Path]:
    """Return the pictures of a folder, or of a pattern such as `p_%04d.png`, in numeric order.

    Raises CameraError if there are none.
    """
    if path.is_dir():
        found = [each for each in path.iterdir() if each.suffix.lower() in PICTURES]
        what = "is a directory"
    else:
        found = _matching(path)
        what = "no picture fits this pattern"
    if not found:
        raise CameraError(
            f"{path}: {what}; expected a video file, or pictures ({', '.join(PICTURES)})"
        )
    return sorted(found, key=_numeric)


def _matching(pattern: Path) -> list[Path]:
    digits = _PATTERN.search(pattern.name)
    if digits is None or not pattern.parent.is_dir():
        return []
    before, after = pattern.name[: digits.start()], pattern.name[digits.end() :]
    name = re.compile(f"{re.escape(before)}\\d{{{digits[1] or 1},}}{re.escape(after)}")
    return [each for each in pattern.parent.iterdir() if name.fullmatch(each.name)]


def is_pattern(path: Path) -> bool:
    """Return whether the name is a pattern of numbered pictures."""
    return _PATTERN.search(path.name) is not None


def open_video(path: str) -> tuple[Reader, float]:
    """Open a video and go to its first picture. Returns the reader and that time stamp in s.

    Takes PyAV where OpenCV cannot decode it. Raises CameraError if neither can.
    """
    capture = cv2.VideoCapture(path)
    opened = capture.isOpened()
    codec = ""
    if opened:
        code = max(0, int(capture.get(cv2.CAP_PROP_FOURCC)))
        codec = code.to_bytes(8, "little")[:4].decode("latin-1").strip("\0 ")
        reader = OpenCvReader(capture)
        stamp_s = reader.grab()
        if stamp_s is not None and reader.retrieve() is not None:
            return reader, stamp_s
    capture.release()
    found = _with_pyav(path)
    if found is not None:
        return found
    convert = f"`ffmpeg -i {path} -c:v libx264 -pix_fmt yuv420p converted.mp4`"
    if not opened:
        raise CameraError(
            f"{path}: is not a video that OpenCV can read; try `ffmpeg -i {path}`, which says "
            f"what is wrong, or convert it with {convert}"
        )
    raise CameraError(
        f"{path}: no picture of it can be decoded{f' (codec {codec})' if codec else ''}; convert "
        f"it with {convert}, or install more codecs with `{sys.executable} -m pip install av`"
    )


def _with_pyav(path: str) -> tuple[Reader, float] | None:
    try:
        reader = PyAvReader(path)
    except (ImportError, OSError, ValueError, CameraError):  # PyAV's errors are OSError, ValueError
        return None
    stamp_s = reader.grab()
    if stamp_s is None:
        reader.close()
        return None
    return reader, stamp_s


def _numeric(path: Path) -> list[tuple[int, str]]:
    """Sort 2 before 10."""
    parts = _NUMBER.split(path.name)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
