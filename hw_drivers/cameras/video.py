"""Live cameras through OpenCV: V4L2 devices, GStreamer pipelines, and cameras in the network."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

import cv2
import numpy as np

from hw_drivers.cameras.camera import Camera, Request
from hw_drivers.cameras.files import FileCamera
from hw_drivers.cameras.foreign import ForeignThread
from hw_drivers.cameras.live import FROZEN_SENSOR_S, FROZEN_STREAM_S, LiveCamera, thread_for
from hw_drivers.cameras.pictures import format_of_pipeline
from hw_drivers.cameras.readers import OpenCvReader
from v2a.errors import CameraError

_GRANTED: Final = 0.9  # a driver that grants less than this share of the rate is worth a remark
_SAME_FORMAT: Final = {"JPEG": "MJPG", "YUY2": "YUYV"}  # two codes for one format
_OPENCV_FIX: Final = (
    "set camera.pixel_format to one that OpenCV converts, such as MJPG, YUYV or NV12 "
    "(v4l2-ctl --list-formats-ext -d {path})"
)
_PIPELINE_FIX: Final = (
    "end the pipeline with ! videoconvert ! video/x-raw,format=BGR ! appsink drop=1"
)


def open_device(source: str, request: Request) -> Camera:
    """Open a V4L2 camera by any path: /dev/video0, /dev/v4l/by-id/..., or device:PATH."""
    path = str(Path(source.removeprefix("device:")).expanduser())
    if not Path(path).exists():
        folders = ("/dev/v4l/by-id", "/dev")
        found = [str(p) for f in folders for p in sorted(Path(f).glob("*")) if _is_video(p)]
        raise CameraError(
            f"{path}: no such camera (found: {', '.join(found) or 'none'}); "
            "plug it in or correct `source`"
        )
    thread = thread_for(path)
    open_it = partial(cv2.VideoCapture, path, cv2.CAP_V4L2)
    fix = f"is it in use (fuser -v {path}), are you in the group video?"
    capture = _opened(thread, open_it, request, f"{path}: cannot be opened; {fix}")

    def negotiate() -> tuple[tuple[int, int], float, str]:
        if request.pixel_format:  # first, because it decides which sizes and rates there are
            code = cv2.VideoWriter.fourcc(*request.pixel_format.ljust(4))
            capture.set(cv2.CAP_PROP_FOURCC, code)
        capture.set(cv2.CAP_PROP_FRAME_WIDTH, request.size[0])
        capture.set(cv2.CAP_PROP_FRAME_HEIGHT, request.size[1])
        capture.set(cv2.CAP_PROP_FPS, request.fps)
        capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # a queue would only make pictures old
        return _granted(capture)

    size, fps, fourcc = _negotiated(thread, negotiate, capture, request)
    wanted = request.pixel_format
    if wanted and fourcc and _same(fourcc) != _same(wanted):
        thread.end(capture.release, request.timeout_s)
        raise CameraError(
            f"{path}: gives {fourcc} instead of camera.pixel_format {wanted}; choose one that "
            f"v4l2-ctl --list-formats-ext -d {path} lists for "
            f"{request.size[0]}x{request.size[1]}"
        )
    camera = LiveCamera(
        path, capture, request.clock, thread=thread,
        told=fourcc or wanted, sizes=(size, request.size),
        fix=_OPENCV_FIX.format(path=path), frozen_s=max(FROZEN_SENSOR_S, request.timeout_s),
    )  # fmt: skip
    return _started(camera, request, asked_size=True, fps=fps, fourcc=fourcc)


def open_gstreamer(source: str, request: Request) -> Camera:
    """Open a pipeline, which sets size and rate: `nvarguscamerasrc ! ... ! appsink drop=1`."""
    pipeline = source.removeprefix("gst:")
    thread = thread_for(source)
    open_it = partial(cv2.VideoCapture, pipeline, cv2.CAP_GSTREAMER)
    capture = _opened(
        thread, open_it, request,
        f"{source}: cannot be opened; try it with gst-launch-1.0, and check that "
        "cv2.getBuildInformation() says GStreamer: YES (the wheels from pip do not)",
    )  # fmt: skip
    size, fps, _ = _negotiated(thread, lambda: _granted(capture), capture, request)
    told = format_of_pipeline(pipeline)
    camera = LiveCamera(
        source, capture, request.clock, thread=thread, told=told, sizes=(size,),
        fix=_PIPELINE_FIX, frozen_s=max(FROZEN_SENSOR_S, request.timeout_s),
    )  # fmt: skip
    return _started(camera, request, asked_size=False, fps=fps, fourcc=told or "")


def open_stream(source: str, request: Request) -> Camera:
    """Open a camera in the network, by RTSP or HTTP. A video of finite length is a file."""
    name = re.sub(r"//[^/@]*@", "//***@", source)  # messages must not show the password
    thread = thread_for(name)
    limit_ms = round(request.timeout_s * 1000) + 500  # so that a thread left behind ends
    options = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit_ms, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit_ms]
    open_it = partial(cv2.VideoCapture, source, cv2.CAP_FFMPEG, options)
    why = f"{name}: cannot be opened; is the address right? try `ffplay '{name}'`"
    capture = _opened(thread, open_it, request, why)
    count_of = partial(capture.get, cv2.CAP_PROP_FRAME_COUNT)
    if thread.call(count_of, request.timeout_s, "no length") > 0:
        return FileCamera(name, OpenCvReader(capture), request, thread)
    size, fps, fourcc = _negotiated(thread, lambda: _granted(capture), capture, request)
    frozen_s = max(FROZEN_STREAM_S, request.timeout_s)
    camera = LiveCamera(
        name, capture, request.clock, thread=thread, sizes=(size,), frozen_s=frozen_s
    )
    return _started(camera, request, asked_size=False, fps=fps, fourcc=fourcc)


def _opened(
    thread: ForeignThread, open_it: Callable[[], cv2.VideoCapture], request: Request, why: str
) -> cv2.VideoCapture:
    """Return the opened capture. Raises CameraError with the text `why` if OpenCV refuses."""

    def capture() -> cv2.VideoCapture:
        made = open_it()
        if not made.isOpened():
            raise CameraError(why)
        return made

    try:
        return thread.call(capture, request.timeout_s, "did not open")
    except CameraError:
        thread.end(lambda: None, request.timeout_s)
        raise


def _granted(capture: cv2.VideoCapture) -> tuple[tuple[int, int], float, str]:
    """Read back size (width, height), frames per second (0: unknown) and FOURCC ('': unknown)."""
    size = tuple(
        _whole(capture.get(key)) for key in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT)
    )
    fps = capture.get(cv2.CAP_PROP_FPS)
    code = max(0, _whole(capture.get(cv2.CAP_PROP_FOURCC))) & 0xFFFFFFFF
    text = code.to_bytes(4, "little").decode("latin-1").strip("\0 ").upper()
    known = np.isfinite(fps) and 0 < fps < 1000
    return (size[0], size[1]), float(fps) if known else 0.0, text if text.isalnum() else ""


def _negotiated(
    thread: ForeignThread,
    negotiate: Callable[[], tuple[tuple[int, int], float, str]],
    capture: cv2.VideoCapture,
    request: Request,
) -> tuple[tuple[int, int], float, str]:
    try:
        return thread.call(negotiate, request.timeout_s, "did not accept its settings")
    except CameraError:
        thread.end(capture.release, request.timeout_s)
        raise


def _started(
    camera: LiveCamera, request: Request, *, asked_size: bool, fps: float, fourcc: str
) -> Camera:
    """Take the first picture, and report what was negotiated."""
    try:
        first = camera.read(request.timeout_s)
    except CameraError:
        camera.close()
        raise
    facts, remarks = camera.report.facts, camera.report.remarks
    facts["pixel format"] = fourcc or "not told"
    facts["rate granted"] = f"{fps:g} Hz" if fps else "not told"
    height, width, _ = first.image.shape
    facts["size"] = f"{width}x{height}"
    if asked_size and (width, height) != request.size:
        facts["size"] += f" (asked for {request.size[0]}x{request.size[1]})"
    if fps and fps < _GRANTED * request.fps:
        text = f"the driver grants {fps:g} pictures a second; camera.fps asks for {request.fps:g}"
        remarks.append((first.t_capture_ns, f"{facts['source']}: {text}"))
    return camera


def _whole(value: float) -> int:
    return int(value) if np.isfinite(value) else 0


def _same(fourcc: str) -> str:
    return _SAME_FORMAT.get(fourcc, fourcc)


def _is_video(path: Path) -> bool:
    return path.name.startswith("video") or path.parent.name == "by-id"
