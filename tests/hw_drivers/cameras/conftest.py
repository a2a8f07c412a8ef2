"""A fixture that replaces OpenCV's capture by a stand-in."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import pytest

from tests.hw_drivers.cameras.captures import FakeCapture


@pytest.fixture
def plug_in(monkeypatch: pytest.MonkeyPatch) -> Callable[[FakeCapture], FakeCapture]:
    """Make every source open this capture."""

    def plug(capture: FakeCapture) -> FakeCapture:
        monkeypatch.setattr(cv2, "VideoCapture", lambda *_: capture)
        return capture

    return plug
