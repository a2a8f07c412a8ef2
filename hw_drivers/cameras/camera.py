"""The camera interface: one picture at a time, with its capture time."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import dataclass, field
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from v2a.clock import Clock
from v2a.errors import CameraError

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: `image` is RGB, uint8 [H, W, 3], in the size that the source delivers.

    `t_capture_ns` is its capture time on the monotonic clock. `seq` counts the source's pictures,
    those included that the source had to drop. `epoch` counts the resets of the scene, if the
    source knows of them.
    """

    seq: int
    t_capture_ns: int
    epoch: int
    image: Image


class Camera(Protocol):
    """A source of frames.

    A camera may also have a `report`, a `CameraReport`. `report_of` finds it.
    """

    def read(self, timeout_s: float) -> Frame:
        """Wait for the next frame. Raises CameraError at the end, or after `timeout_s`."""
        ...

    def close(self) -> None:
        """Close the source. A second call does nothing."""
        ...


@dataclass(slots=True)
class CameraReport:
    """What a source says about itself: facts, counters, and remarks for the user.

    `facts` has what was negotiated, such as size and pixel format. `remarks` are lines of text with
    their times in ns, oldest first.
    """

    facts: dict[str, str] = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    remarks: list[tuple[int, str]] = field(default_factory=list)


def report_of(camera: Camera) -> CameraReport:
    """Return the camera's report, or an empty one."""
    found = getattr(camera, "report", None)
    return found if isinstance(found, CameraReport) else CameraReport()


@dataclass(frozen=True, slots=True)
class Request:
    """What robot.yaml asks of a camera: size (width, height), rate, deadline and pixel format.

    `timeout_s` limits opening, each picture, and closing. `pixel_format` is a V4L2 code such as
    MJPG, None for any.
    """

    size: tuple[int, int]
    fps: float
    clock: Clock
    timeout_s: float
    pixel_format: str | None


# Prefix of a source -> its opener (module, function), imported when it is used. An opener takes the
# whole source and the `Request`.
_SOURCES = {
    "file:": ("hw_drivers.cameras.files", "open_file"),
    "/dev/": ("hw_drivers.cameras.video", "open_device"),
    "device:": ("hw_drivers.cameras.video", "open_device"),
    "gst:": ("hw_drivers.cameras.video", "open_gstreamer"),
    "rtsp://": ("hw_drivers.cameras.video", "open_stream"),
    "rtsps://": ("hw_drivers.cameras.video", "open_stream"),
    "http://": ("hw_drivers.cameras.video", "open_stream"),
    "https://": ("hw_drivers.cameras.video", "open_stream"),
    "socket:": ("hw_drivers.cameras.datagram", "open_socket"),
    "synthetic:": ("hw_drivers.cameras.synthetic", "open_synthetic"),
}


def open_camera(
    source: str,
    size: tuple[int, int],
    fps: float,
    clock: Clock,
    timeout_s: float = 2.0,
    pixel_format: str | None = None,
) -> Camera:
    """Open `source`, one of:

        file:PATH            a video file, a folder of pictures, or a pattern such as p_%04d.png
        /dev/..., device:PATH    a V4L2 camera, asked for `size` (width, height) and `fps`
        gst:PIPELINE         a GStreamer pipeline that ends in an appsink
        rtsp://..., http://...   a camera in the network
        socket:PATH          pictures that a simulator sends to a Unix datagram socket
        synthetic:           noise of `size` at `fps`, to time a policy without a camera

    A camera must open within `timeout_s`. Raises CameraError with one line that says what to do.
    """
    request = Request(size, fps, clock, timeout_s, pixel_format)
    for prefix, (module, opener) in _SOURCES.items():
        if source.startswith(prefix):
            open_source = getattr(importlib.import_module(module), opener)
            return cast(Camera, open_source(source, request))
    raise CameraError(
        f"{source}: unknown kind of camera; a source begins with {', '.join(_SOURCES)}"
    )
