"""Pictures without a camera: noise of the size and rate that is asked for."""

from __future__ import annotations

import numpy as np

from hw_drivers.cameras.camera import Frame, Image
from v2a.clock import Clock

PICTURES = 8  # made once: a camera costs the processor next to nothing, and so must this


class SyntheticCamera:
    """Picture k is due k periods after the first read; when nobody read in time, those due
    meanwhile are left out, as a camera's would be."""

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
        """Nothing is held."""


def open_synthetic(_what: str, size: tuple[int, int], fps: float, clock: Clock) -> SyntheticCamera:
    """Noise: what the policy makes of it means nothing, what it costs does."""
    return SyntheticCamera(size, fps, clock)
