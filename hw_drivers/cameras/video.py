"""Video files, V4L2 cameras and GStreamer pipelines, all through OpenCV."""

from __future__ import annotations

import threading
from pathlib import Path

import cv2
import numpy as np

from hw_drivers.cameras.camera import Frame, Image
from v2a.clock import Clock
from v2a.errors import CameraEnded, CameraError


class LiveCamera:
    """A camera with a pace of its own. `read` waits for OpenCV, which has its own timeouts."""

    def __init__(self, name: str, capture: cv2.VideoCapture, clock: Clock) -> None:
        self._name = name
        self._capture = capture
        self._clock = clock
        self._seq = -1
        self._in_use = threading.Lock()

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`."""
        with self._in_use:
            grabbed = self._capture.grab()
            t_capture_ns = self._clock.now_ns()  # before the decoding
            if not grabbed:
                raise CameraError(
                    f"{self._name}: the camera stopped; check its cable, then start again"
                )
            self._seq += 1
            return Frame(self._seq, t_capture_ns, 0, _retrieve(self._name, self._capture))

    def close(self) -> None:
        """See `Camera`. A camera that hangs in `read` stays open until the process ends.

        OpenCV may crash if a capture is released while another thread reads from it.
        """
        if self._in_use.acquire(blocking=False):
            self._capture.release()
            self._in_use.release()


class FileCamera:
    """A video file as a camera: it delivers frame k at k periods after the first read."""

    def __init__(self, name: str, capture: cv2.VideoCapture, fps: float, clock: Clock) -> None:
        self._name = name
        self._capture = capture
        self._clock = clock
        self._period_s = 1.0 / fps
        self._start_ns: int | None = None
        self._seq = -1

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`."""
        now_ns = self._clock.now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        due_ns = self._start_ns + round((self._seq + 1) * self._period_s * 1e9)
        if due_ns > now_ns + timeout_s * 1e9:
            raise CameraError(
                f"{self._name}: no frame within {timeout_s} s; one is due every {self._period_s} s"
            )
        if not self._capture.grab():
            raise CameraEnded(f"{self._name}: ended after {self._seq + 1} frames")
        image = _retrieve(self._name, self._capture)
        self._clock.sleep_until_ns(due_ns)
        self._seq += 1
        return Frame(self._seq, due_ns, 0, image)

    def close(self) -> None:
        """See `Camera`."""
        self._capture.release()


def open_file(path: str, _size: tuple[int, int], fps: float, clock: Clock) -> FileCamera:
    """Open a video file. `fps` is used only if the file does not name its rate."""
    if not Path(path).is_file():
        what = "is a directory" if Path(path).is_dir() else "no such file"
        raise CameraError(f"{path}: {what}; expected a video file")
    capture = cv2.VideoCapture(path)
    if not capture.isOpened():
        raise CameraError(f"{path}: is not a video that OpenCV can read; try `ffmpeg -i {path}`")
    return FileCamera(path, capture, capture.get(cv2.CAP_PROP_FPS) or fps, clock)


def open_device(number: str, size: tuple[int, int], fps: float, clock: Clock) -> LiveCamera:
    """Open /dev/video`number`."""
    path = f"/dev/video{number}"
    if not Path(path).exists():
        found = ", ".join(sorted(map(str, Path("/dev").glob("video*")))) or "none"
        raise CameraError(
            f"{path}: no such camera (found: {found}); plug it in or correct `source`"
        )
    capture = cv2.VideoCapture(path, cv2.CAP_V4L2)
    if not capture.isOpened():
        raise CameraError(
            f"{path}: cannot be opened; is it in use (fuser -v {path}), are you in the group video?"
        )
    capture.set(cv2.CAP_PROP_FRAME_WIDTH, size[0])
    capture.set(cv2.CAP_PROP_FRAME_HEIGHT, size[1])
    capture.set(cv2.CAP_PROP_FPS, fps)
    capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue would only make pictures old
    return LiveCamera(path, capture, clock)


def open_gstreamer(pipeline: str, _size: tuple[int, int], _fps: float, clock: Clock) -> LiveCamera:
    """Open a pipeline, which sets size and rate: `nvarguscamerasrc ! ... ! appsink drop=1`."""
    capture = cv2.VideoCapture(pipeline, cv2.CAP_GSTREAMER)
    if not capture.isOpened():
        raise CameraError(
            f"gst:{pipeline}: cannot be opened; try it with gst-launch-1.0, and check that "
            "cv2.getBuildInformation() says GStreamer: YES (the wheels from pip do not)"
        )
    return LiveCamera(f"gst:{pipeline}", capture, clock)


def _retrieve(name: str, capture: cv2.VideoCapture) -> Image:
    decoded, bgr = capture.retrieve()
    if not decoded:
        raise CameraError(f"{name}: a picture cannot be decoded; the file or the link is damaged")
    return np.ascontiguousarray(bgr[:, :, ::-1], dtype=np.uint8)
