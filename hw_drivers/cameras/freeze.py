"""Notices a camera that delivers the same picture again and again.

The noise of a sensor changes some pixel in every picture. So a row of pictures that are equal bit
by bit is a driver or a link that repeats its last buffer. Pictures without contrast are no proof:
a covered or blinded lens clips the noise away.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from hw_drivers.cameras.camera import Image

CONTRAST_MIN: Final = 16  # levels of 255 between the smallest and the largest value of a channel
_COARSE: Final = 64  # contrast is judged on so many rows and columns
_SAMPLE: Final = 64  # the first look compares every 64th byte


class FreezeWatch:
    """Measures for how long the picture has not changed.

    A pause between two pictures counts as `gap_max_s` at most: only pictures prove something.
    """

    def __init__(self, gap_max_s: float) -> None:
        self._gap_max_s = gap_max_s
        self._last: Image | None = None
        self._t_ns = 0
        self._unchanged_s = 0.0

    def unchanged_s(self, image: Image, t_ns: int) -> float:
        """Return for how many seconds the pictures up to this one were equal, 0 if it differs."""
        last, self._last = self._last, image
        gap_s, self._t_ns = (t_ns - self._t_ns) / 1e9, t_ns
        same = last is not None and _equal(last, image)
        self._unchanged_s = self._unchanged_s + min(gap_s, self._gap_max_s) if same else 0.0
        return self._unchanged_s


def has_contrast(image: Image) -> bool:
    """Return whether there is anything to see in the picture: some channel is not uniform."""
    step = max(1, min(image.shape[:2]) // _COARSE)
    sample = image[::step, ::step]
    low, high = sample.min(axis=(0, 1)), sample.max(axis=(0, 1))
    return bool((high.astype(int) - low >= CONTRAST_MIN).any())


def _equal(a: Image, b: Image) -> bool:
    if a.shape != b.shape:
        return False
    sampled = np.array_equal(a.reshape(-1)[::_SAMPLE], b.reshape(-1)[::_SAMPLE])
    return sampled and np.array_equal(a, b)
