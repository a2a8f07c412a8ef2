"""The camera worker: captures pictures, scales them for the policy, and keeps the recent ones."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress

import numpy as np

from hw_drivers.cameras.camera import Camera, CameraReport, Frame, open_camera, report_of
from runtime.config.robot_yaml import CameraConfig
from runtime.mailbox import FrameMsg, Image, Mailboxes
from v2a.bundle import CameraSpec
from v2a.clock import Clock
from v2a.errors import CameraError
from v2a.spans import STAGE_INDEX, SpanRing

HISTORY_MAX = 2000  # pictures, whatever a camera's rate and time stamps
RATE_WINDOW_S = 3.0
RATE_FRAMES_MIN = 5  # a slow camera is measured over a longer time
RATE_SHARE_MIN = 0.8  # the pictures must fill the window to this share

CAPTURE, PREPROCESS = STAGE_INDEX["capture"], STAGE_INDEX["preprocess"]


class CameraWorker:
    """Takes one picture per step. Drops pictures that were captured before the last reset."""

    name = "camera"

    def __init__(
        self,
        camera: Camera,
        spec: CameraSpec,
        config: CameraConfig,
        mailboxes: Mailboxes,
        clock: Clock,
        ring: SpanRing,
    ) -> None:
        self._camera = camera
        self._source = config.source
        self._size = (spec.width, spec.height)
        self._timeout_s = config.timeout_s
        self._mailboxes = mailboxes
        self._clock = clock
        self.ring = ring
        # Long enough to cover the time of the policy's history if the camera jitters, and if it is
        # faster than `config.fps`.
        self._history_ns = round((spec.history - 1) * spec.interval_s * 1e9)
        self._history_min = max(round(self._history_ns / 1e9 * config.fps) + 3, spec.history)
        self._history: deque[tuple[int, Image]] = deque(maxlen=HISTORY_MAX)
        self._epoch = 0
        self._seq = 0
        self._last: Frame | None = None
        # Capture times of the last seconds, to measure the rate.
        self._window_ns = round(max(RATE_WINDOW_S, RATE_FRAMES_MIN / config.fps) * 1e9)
        self._times_ns: deque[int] = deque(maxlen=HISTORY_MAX)
        self.report: CameraReport = report_of(camera)
        self.counts: Counter[str] = self.report.counts

    def step(self, now_ns: int) -> FrameMsg | None:
        """Wait for the next picture and return it at the policy's size.

        Returns None for a picture from before the last reset. Raises CameraError if the camera has
        stopped, or stamps a picture in the future.
        """
        frame = self._camera.read(self._timeout_s)
        received_ns = self._clock.now_ns()
        self._check(frame, received_ns)
        self._count(frame)
        epoch = self._mailboxes.epoch
        stale = frame.t_capture_ns < epoch.start_ns
        seq = 0 if stale else self._seq + 1
        self.ring.add(CAPTURE, frame.t_capture_ns, received_ns, seq)
        if epoch.number != self._epoch:
            self._epoch = epoch.number
            self._history.clear()
        if stale:
            self.counts["before_reset"] += 1
            return None
        image = resized(frame.image, self._size)
        self.ring.add(PREPROCESS, received_ns, self._clock.now_ns(), seq)
        self._remember(frame.t_capture_ns, image)
        self._seq = seq
        self.counts["frames"] += 1
        return FrameMsg(
            seq=seq,
            t_capture_ns=frame.t_capture_ns,
            t_publish_ns=0,
            parent_seq=frame.seq,
            epoch=epoch.number,
            image=image,
            history=tuple(self._history),
        )

    def rate_hz(self) -> float | None:
        """Return the measured rate of the last seconds, None before there are enough pictures."""
        times_ns = list(self._times_ns)  # the camera's thread may append meanwhile
        if len(times_ns) < 2 or times_ns[-1] - times_ns[0] < RATE_SHARE_MIN * self._window_ns:
            return None
        return (len(times_ns) - 1) * 1e9 / (times_ns[-1] - times_ns[0])

    def facts(self) -> dict[str, str]:
        """Return what the camera negotiated, and its measured rate."""
        rate_hz = self.rate_hz()
        measured = {} if rate_hz is None else {"rate measured": f"{rate_hz:.1f} Hz"}
        return {**self.report.facts, **measured}

    def _check(self, frame: Frame, received_ns: int) -> None:
        """Raise CameraError for what is no picture or comes from the future."""
        image = frame.image
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise CameraError(
                f"{self._source}: picture {frame.seq} is {image.dtype} {list(image.shape)}; a "
                "camera must deliver RGB, uint8 [H, W, 3]"
            )
        if frame.t_capture_ns > received_ns:
            ahead_s = (frame.t_capture_ns - received_ns) / 1e9
            raise CameraError(
                f"picture {frame.seq} has a time stamp {ahead_s:.3f} s in the future; the camera "
                f"must use this machine's monotonic clock ({self._source})"
            )

    def _count(self, frame: Frame) -> None:
        """Count the pictures that the source dropped, and keep the times for the rate."""
        last, self._last = self._last, frame
        if last is not None and last.epoch == frame.epoch and frame.seq > last.seq + 1:
            self.counts["dropped_by_source"] += frame.seq - last.seq - 1
        times_ns = self._times_ns
        while times_ns and times_ns[0] < frame.t_capture_ns - self._window_ns:
            times_ns.popleft()
        times_ns.append(frame.t_capture_ns)

    def _remember(self, t_ns: int, image: Image) -> None:
        """Add a picture to the history, and forget those that no clip can need."""
        history = self._history
        history.append((t_ns, image))
        while len(history) > self._history_min and history[1][0] <= t_ns - self._history_ns:
            history.popleft()

    def warm(self) -> None:
        """Resize once. A later import of OpenCV would stop all threads, and so the control loop."""
        with suppress(ModuleNotFoundError):  # pictures of the right size do not need it
            resized(np.zeros((*self._size, 3), np.uint8), (1, 1))

    def close(self) -> None:
        """Close the camera."""
        self._camera.close()


def camera_of(config: CameraConfig, clock: Clock) -> Camera:
    """Open the camera that robot.yaml names. Raises CameraError."""
    size = (config.width, config.height)
    return open_camera(
        config.source, size, config.fps, clock, config.timeout_s, config.pixel_format
    )


def resized(image: Image, size: tuple[int, int]) -> Image:
    """Scale `image`, uint8 [H, W, 3] RGB, to `size` (width, height) in pixels.

    Returns uint8 [height, width, 3]. Averages over areas, as the training data was made.
    """
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    import cv2  # here: the base install has no OpenCV, and pictures of the right size need none

    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False)
