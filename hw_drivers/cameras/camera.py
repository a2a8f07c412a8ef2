"""The camera interface: one picture at a time, with its capture time."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from v2a.clock import Clock
from v2a.errors import CameraError

Image = npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture: `image` is RGB, uint8 [H, W, 3], in the size that the source delivers.

    `t_capture_ns` is its capture time on the monotonic clock. `epoch` counts the resets of the
    scene, if the source knows of them.
    """

    seq: int
    t_capture_ns: int
    epoch: int
    image: Image


class Camera(Protocol):
    """A source of frames."""

    def read(self, timeout_s: float) -> Frame:
        """Wait for the next frame. Raises CameraError at the end, or after `timeout_s`."""
        ...

    def close(self) -> None:
        """Close the source. A second call does nothing."""
        ...


# Prefix of a source -> its opener (module, function), imported when it is used. An opener takes the
# text after the prefix, the size (width, height), the frames per second, and the clock.
_SOURCES = {
    "file:": ("hw_drivers.cameras.video", "open_file"),
    "/dev/video": ("hw_drivers.cameras.video", "open_device"),
    "gst:": ("hw_drivers.cameras.video", "open_gstreamer"),
    "socket:": ("hw_drivers.cameras.datagram", "open_socket"),
    "synthetic:": ("hw_drivers.cameras.synthetic", "open_synthetic"),
}


def open_camera(source: str, size: tuple[int, int], fps: float, clock: Clock) -> Camera:
    """Open `source`, one of:

        file:PATH        a video file, paced at its own rate
        /dev/videoN      a V4L2 camera, asked for `size` (width, height) and `fps`
        gst:PIPELINE     a GStreamer pipeline that ends in an appsink
        socket:PATH      pictures that a simulator sends to a Unix datagram socket
        synthetic:       noise of `size` at `fps`, to time a policy without a camera

    Raises CameraError with one line that says what to do.
    """
    for prefix, (module, opener) in _SOURCES.items():
        if source.startswith(prefix):
            open_source = getattr(importlib.import_module(module), opener)
            return cast(Camera, open_source(source.removeprefix(prefix), size, fps, clock))
    raise CameraError(
        f"{source}: unknown kind of camera; a source begins with {', '.join(_SOURCES)}"
    )
