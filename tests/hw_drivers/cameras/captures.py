"""Stand-ins for OpenCV's capture of a V4L2 camera, with the faults of real ones."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np

Picture = Any


def noise(number: int, height: int = 48, width: int = 64) -> Picture:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), np.uint8)


class FakeCapture:
    """A camera of 64 x 48 pixels. `picture(k)` is picture k; `hangs_in` names a call that hangs."""

    def __init__(
        self,
        picture: Callable[[int], Picture] = noise,
        hangs_in: str = "",
        settings: dict[int, float] | None = None,
        period_s: float = 0.0,
    ) -> None:
        self.number = 0
        self.released = False
        self.asked: dict[int, float] = {}
        self.hanging, self.go_on = threading.Event(), threading.Event()
        self._picture = picture
        self._hangs_in = hangs_in
        self._period_s = period_s
        size = {cv2.CAP_PROP_FRAME_WIDTH: 64.0, cv2.CAP_PROP_FRAME_HEIGHT: 48.0}
        self._settings: dict[int, float] = {**size, **(settings or {})}

    def _enter(self, call: str) -> None:
        if call == self._hangs_in:
            self.hanging.set()
            self.go_on.wait()

    def isOpened(self) -> bool:  # noqa: N802  OpenCV's name
        self._enter("open")
        return True

    def set(self, key: int, value: float) -> bool:
        self._enter("set")
        self.asked[key] = value
        return True

    def get(self, key: int) -> float:
        return self._settings.get(key, 0.0)

    def grab(self) -> bool:
        self._enter("grab" if self.number else "first grab")
        time.sleep(self._period_s)
        self.number += 1
        return True

    def retrieve(self) -> tuple[bool, Picture]:
        self._enter("retrieve")
        return True, self._picture(self.number)

    def release(self) -> None:
        self._enter("release")
        self.released = True
