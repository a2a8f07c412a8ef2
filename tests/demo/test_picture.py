"""The drawn pictures: things are where a camera would see them."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from demo import arm, expert
from demo.arm import F64
from demo.physics import PUCK_HEIGHT_M, PUCK_RADIUS_M
from demo.picture import HALF_VIEW_M, HEIGHT_M, SIZE, U8, Painter

PUCK_TOP = (226, 98, 72)
RING = (214, 186, 74)
HOVERING = arm.joints_for_ring(np.array([*expert.CENTRE_M, expert.HOVER_M]))
DOWN = arm.joints_for_ring(np.array([*expert.CENTRE_M, expert.DOWN_M]))
ASIDE = arm.joints_for_ring(np.array([0.1, -0.3, expert.HOVER_M]))
FAR = np.array([2.0, 2.0])


class NoSpread:
    """Stands in for a generator: every draw is its mean, so the camera hangs as designed."""

    def normal(self, mean: float, spread: float, size: Any = None) -> Any:
        return np.full(size, mean) if size is not None else mean

    def integers(self, low: int, high: int, size: Any, dtype: Any) -> Any:
        return np.zeros(size, dtype)


def ideal_painter() -> Painter:
    return Painter(NoSpread())  # type: ignore[arg-type]


def coloured(picture: U8, colour: tuple[int, int, int]) -> npt.NDArray[np.bool_]:
    """Where the picture is of this colour, but for noise: [SIZE, SIZE]."""
    return np.asarray(np.abs(picture.astype(int) - colour).max(axis=-1) <= 12)


def centroid(mask: npt.NDArray[np.bool_]) -> F64:
    """(column, row) of the middle of what is set; a pixel's own middle is at a half."""
    middle: F64 = np.argwhere(mask).mean(axis=0)[::-1] + 0.5
    return middle


def projected(point_m: F64) -> F64:
    """(column, row) of a point [3]: a pinhole above the workspace's centre, up is +x."""
    scale = SIZE / 2 / HALF_VIEW_M * HEIGHT_M / (HEIGHT_M - point_m[2])
    x, y = point_m[:2] - expert.CENTRE_M
    return np.array([SIZE / 2 - y * scale, SIZE / 2 - x * scale])


@settings(max_examples=40)
@given(st.floats(0.10, 0.60), st.floats(0.0, 0.36))
def test_the_puck_is_where_the_projection_says(x: float, y: float) -> None:
    picture = ideal_painter().draw(ASIDE, np.array([x, y]))
    found = centroid(coloured(picture, PUCK_TOP))
    assert np.linalg.norm(found - projected(np.array([x, y, PUCK_HEIGHT_M]))) < 0.7


def test_the_puck_has_its_size() -> None:
    picture = ideal_painter().draw(ASIDE, expert.CENTRE_M)
    radius_px = PUCK_RADIUS_M * SIZE / 2 / HALF_VIEW_M * HEIGHT_M / (HEIGHT_M - PUCK_HEIGHT_M)
    assert coloured(picture, PUCK_TOP).sum() == pytest.approx(np.pi * radius_px**2, rel=0.2)


@pytest.mark.parametrize("seed", range(5))
def test_a_real_camera_hangs_a_little_askew(seed: int) -> None:
    puck = np.array([0.40, 0.15])
    picture = Painter(np.random.default_rng(seed)).draw(ASIDE, puck)
    error_px = centroid(coloured(picture, PUCK_TOP)) - projected(np.array([*puck, PUCK_HEIGHT_M]))
    assert np.linalg.norm(error_px) < 3.0


def test_the_ring_is_around_its_centre_and_its_hole_is_open() -> None:
    ring = coloured(ideal_painter().draw(HOVERING, FAR), RING)
    top = projected(np.array([*expert.CENTRE_M, expert.HOVER_M + arm.RING_HEIGHT_M]))
    # The hand covers the near rim, so only left and right are symmetric.
    assert centroid(ring)[0] == pytest.approx(top[0], abs=0.7)
    away_px = np.linalg.norm(np.argwhere(ring)[:, ::-1] + 0.5 - top, axis=1)
    scale = SIZE / 2 / HALF_VIEW_M
    assert away_px.min() > arm.RING_INNER_M * scale
    assert away_px.max() < 1.1 * (arm.RING_INNER_M + arm.RING_WALL_M) * scale


def test_a_captured_puck_shows_through_the_ring() -> None:
    picture = ideal_painter().draw(DOWN, expert.CENTRE_M)
    found = centroid(coloured(picture, PUCK_TOP))
    assert np.linalg.norm(found - projected(np.array([*expert.CENTRE_M, PUCK_HEIGHT_M]))) < 0.7


def test_the_same_seed_draws_the_same_bytes_and_another_one_another_table() -> None:
    def pictures(seed: int) -> U8:
        painter = Painter(np.random.default_rng(seed))
        return np.stack([painter.draw(HOVERING, expert.CENTRE_M) for _ in range(3)])

    first = pictures(1)
    assert first.shape == (3, SIZE, SIZE, 3)
    assert first.dtype == np.uint8
    assert first.tobytes() == pictures(1).tobytes()
    assert first[0].tobytes() != first[1].tobytes()  # noise
    table = np.s_[:, :20]  # far from the arm
    other = pictures(2)
    assert abs(first[table].mean() - other[table].mean()) > 1.0
