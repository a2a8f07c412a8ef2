"""`LiveCamera`: a camera with a pace of its own, read through OpenCV."""

from __future__ import annotations

from typing import Any, Final

import cv2

from hw_drivers.cameras.camera import CameraReport, Frame, Image
from hw_drivers.cameras.foreign import ForeignThread
from hw_drivers.cameras.freeze import FreezeWatch, has_contrast
from hw_drivers.cameras.pictures import Conversion, Sizes, contiguous, conversion_for
from v2a.clock import Clock
from v2a.errors import CameraError

# A sensor's noise makes equal pictures impossible. A video codec may hide the noise of a still
# scene until its next key frame, which comes every few seconds.
FROZEN_SENSOR_S: Final = 2.0
FROZEN_STREAM_S: Final = 10.0
_FROZEN_PICTURES_MIN: Final = 10  # two equal pictures prove nothing


class LiveCamera:
    """A camera with a pace of its own. OpenCV runs in a thread of its own, under a deadline."""

    def __init__(
        self,
        name: str,
        capture: cv2.VideoCapture,
        clock: Clock,
        *,
        thread: ForeignThread | None = None,
        told: str | None = None,
        sizes: Sizes = (),
        fix: str = "choose another pixel format",
        frozen_s: float = FROZEN_SENSOR_S,
    ) -> None:
        self._name = name
        self._capture = capture
        self._clock = clock
        self._thread = thread or thread_for(name)
        self._told, self._sizes, self._fix = told, sizes, fix
        self._conversions: dict[tuple[tuple[int, ...], Any], Conversion] = {}
        self._freeze = FreezeWatch(frozen_s / _FROZEN_PICTURES_MIN)
        self._frozen_s = frozen_s
        self._timeout_s = frozen_s
        self._warned = False
        self._seq = -1
        self.report = CameraReport(facts={"source": name})

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`. Raises CameraError also if the picture has frozen."""
        self._timeout_s = timeout_s
        frame = self._thread.call(self._next, timeout_s, "no picture")
        self._watch_freeze(frame)
        return frame

    def close(self) -> None:
        """See `Camera`. A camera that hangs in `read` stays open until it returns."""
        self._thread.end(self._capture.release, self._timeout_s)

    def _next(self) -> Frame:
        grabbed = self._capture.grab()
        t_capture_ns = self._clock.now_ns()  # before the decoding
        if not grabbed:
            raise CameraError(
                f"{self._name}: the camera stopped; check its cable, then start again"
            )
        decoded, picture = self._capture.retrieve()
        if not decoded:
            raise CameraError(
                f"{self._name}: a picture cannot be decoded; the file or the link is damaged"
            )
        self._seq += 1
        return Frame(self._seq, t_capture_ns, 0, self._to_rgb(picture))

    def _to_rgb(self, picture: Any) -> Image:
        key = (getattr(picture, "shape", ()), getattr(picture, "dtype", None))
        if key not in self._conversions:
            found = conversion_for(picture, self._told, self._sizes, self._name, self._fix)
            self._conversions[key] = found
            if found.name:
                self.report.facts["converted from"] = found.name
        return contiguous(self._conversions[key].to_rgb(picture))

    def _watch_freeze(self, frame: Frame) -> None:
        unchanged_s = self._freeze.unchanged_s(frame.image, frame.t_capture_ns)
        if unchanged_s == 0.0:
            self._warned = False
            return
        self.report.counts["unchanged_pictures"] += 1
        if unchanged_s < self._frozen_s / 2:
            return
        dark = not has_contrast(frame.image)
        if not self._warned:
            self._warned = True
            why = "is the lens covered, or the light off?" if dark else "the camera has frozen"
            text = f"{self._name}: the picture has not changed for {unchanged_s:.1f} s; {why}"
            self.report.remarks.append((frame.t_capture_ns, text))
        if unchanged_s >= self._frozen_s and not dark:
            raise CameraError(
                f"{self._name}: not one bit of the picture has changed for {unchanged_s:.1f} s: "
                "the camera has frozen; unplug it and plug it in again, then start again"
            )


def thread_for(name: str) -> ForeignThread:
    """Start the thread in which OpenCV opens and reads the live camera `name`."""
    return ForeignThread(
        name,
        "check the camera, its cable and its power; if it needs longer, raise camera.timeout_s",
    )
