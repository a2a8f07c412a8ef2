"""Pictures without a camera: noise in a given size, at a given rate."""

from __future__ import annotations

import numpy as np

from hw_drivers.cameras.camera import Frame, Image, Request
from v2a.clock import Clock

PICTURES = 8  # made once, because a real camera costs almost no processor time either


class SyntheticCamera:
    """Delivers picture k at k periods after the first read.

    If nobody reads in time, it skips pictures, as a camera does.
    """

    def __init__(self, size: tuple[int, int], fps: float, clock: Clock) -> None:
        width, height = size
        noise = np.random.default_rng(0).integers(
            0, 256, (PICTURES, height, width, 3), dtype=np.uint8
        )
        self._pictures: list[Image] = list(noise)
        self._period_ns = round(1e9 / fps)
        self._clock = clock
        self._start_ns: int | None = None
        self._seq = -1

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`."""
        now_ns = self._clock.now_ns()
        if self._start_ns is None:
            self._start_ns = now_ns
        self._seq = max(self._seq + 1, (now_ns - self._start_ns) // self._period_ns)
        due_ns = self._start_ns + self._seq * self._period_ns
        self._clock.sleep_until_ns(due_ns)
        return Frame(self._seq, due_ns, 0, self._pictures[self._seq % PICTURES])

    def close(self) -> None:
        """See `Camera`. There is nothing to close."""


def open_synthetic(_source: str, request: Request) -> SyntheticCamera:
    """Open a source of noise, to measure what a policy costs. Its actions mean nothing."""
    return SyntheticCamera(request.size, request.fps, request.clock)
