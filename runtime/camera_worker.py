"""The camera worker: captures pictures, scales them for the policy, and keeps the recent ones."""

from __future__ import annotations

from collections import Counter, deque
from contextlib import suppress

import numpy as np

from hw_drivers.cameras.camera import Camera
from runtime.config.robot_yaml import CameraConfig
from runtime.mailbox import FrameMsg, Image, Mailboxes
from v2a.bundle import CameraSpec
from v2a.clock import Clock
from v2a.errors import CameraError
from v2a.spans import STAGE_INDEX, SpanRing

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
        self._size = (spec.width, spec.height)
        self._timeout_s = config.timeout_s
        self._mailboxes = mailboxes
        self._clock = clock
        self.ring = ring
        # Long enough to cover the time of the policy's history if the camera jitters.
        length = round((spec.history - 1) * spec.interval_s * config.fps) + 3
        self._history: deque[tuple[int, Image]] = deque(maxlen=max(length, spec.history))
        self._epoch = 0
        self._seq = 0
        self.counts: Counter[str] = Counter()

    def step(self, now_ns: int) -> FrameMsg | None:
        """Wait for the next picture and return it at the policy's size.

        Returns None for a picture from before the last reset. Raises CameraError if the camera has
        stopped, or stamps a picture in the future.
        """
        frame = self._camera.read(self._timeout_s)
        received_ns = self._clock.now_ns()
        if frame.t_capture_ns > received_ns:
            ahead_s = (frame.t_capture_ns - received_ns) / 1e9
            raise CameraError(
                f"picture {frame.seq} has a time stamp {ahead_s:.3f} s in the future; "
                "the camera must use this machine's monotonic clock"
            )
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
        self._history.append((frame.t_capture_ns, image))
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

    def warm(self) -> None:
        """Resize once. A later import of OpenCV would stop all threads, and so the control loop."""
        with suppress(ModuleNotFoundError):  # pictures of the right size do not need it
            resized(np.zeros((*self._size, 3), np.uint8), (1, 1))

    def close(self) -> None:
        """Close the camera."""
        self._camera.close()


def resized(image: Image, size: tuple[int, int]) -> Image:
    """Scale `image`, uint8 [H, W, 3] RGB, to `size` (width, height) in pixels.

    Returns uint8 [height, width, 3]. Averages over areas, as the training data was made.
    """
    height, width = image.shape[:2]
    if (width, height) == size:
        return image
    import cv2  # here: the base install has no OpenCV, and pictures of the right size need none

    return cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype("uint8", copy=False)
