"""The pictures that System 2 is given, by time, whatever the camera's jitter."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.camera_worker import resized
from runtime.policy.system2 import pick_pictures

INTERVAL_NS = 50_000_000


def picked(times_ms: list[int], count: int = 4) -> list[int] | None:
    indices = pick_pictures(np.array(times_ms, np.int64) * 1_000_000, count, INTERVAL_NS)
    return None if indices is None else indices.tolist()


@pytest.mark.parametrize(
    ("times_ms", "expected"),
    [
        ([0, 50, 100, 150], [0, 1, 2, 3]),
        ([0, 50, 100, 150, 200], [1, 2, 3, 4]),
        ([0, 25, 50, 75, 100, 125, 150], [0, 2, 4, 6]),  # a camera of twice the rate
        ([0, 50, 100], None),  # the episode has just begun
        ([0, 50, 150], [0, 1, 1, 2]),  # one lost frame
        ([0, 100, 200], [0, 1, 1, 2]),  # a camera of half the rate
        ([0, 200], None),  # a hole
        ([0, 20, 40, 60], None),  # four pictures that span too little
    ],
)
def test_by_time(times_ms: list[int], expected: list[int] | None) -> None:
    assert picked(times_ms) == expected


@given(st.lists(st.integers(-12, 12), min_size=6, max_size=6))
def test_jitter_of_a_quarter_interval_never_repeats_or_swaps_pictures(jitter: list[int]) -> None:
    clip = picked([50 * k + offset for k, offset in enumerate(jitter)])
    assert clip == [2, 3, 4, 5]


def test_pictures_of_the_right_size_pass_and_others_are_resized() -> None:
    image = np.zeros((8, 8, 3), np.uint8)
    assert resized(image, (8, 8)) is image
    pytest.importorskip("cv2", reason="resizing needs OpenCV")
    chequered = np.tile(np.array([[0, 200], [200, 0]], np.uint8), (8, 16))[..., None]
    small = resized(np.repeat(chequered, 3, axis=2), (8, 4))
    assert small.shape == (4, 8, 3)
    assert small.dtype == np.uint8
    assert np.all(small == 100)  # the mean over each area
