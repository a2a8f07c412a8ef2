"""The demo's camera: draws a perspective view from above with OpenCV.

It needs no OpenGL and takes about 1 ms per image. Shapes are polygons with sub-pixel corners.
Light, table texture, noise and a small error of the camera's pose differ between episodes.
"""

from __future__ import annotations

from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from demo import arm
from demo.arm import F64
from demo.expert import CENTRE_M
from demo.physics import PUCK_HEIGHT_M, PUCK_RADIUS_M

U8 = npt.NDArray[np.uint8]

SIZE: Final = 192
HEIGHT_M: Final = 1.10
HALF_VIEW_M: Final = 0.50
_SHIFT: Final = 4
_CIRCLE: Final = np.stack(
    [np.cos(np.linspace(0, 2 * np.pi, 25)), np.sin(np.linspace(0, 2 * np.pi, 25))], -1
)

# RGB
_TABLE: Final = np.array([96.0, 104.0, 92.0])
_PUCK: Final = ((196, 60, 44), (226, 98, 72))
_LINKS: Final = ((58, 66, 86), (84, 92, 112), (108, 116, 132))
_RING: Final = (214, 186, 74)
_SHADOW: Final = (62, 66, 60)


class Painter:
    """Draws the images of one episode. `rng` sets everything that differs between episodes."""

    def __init__(self, rng: np.random.Generator) -> None:
        self._rng = rng
        self._eye = np.array([*CENTRE_M, HEIGHT_M]) + rng.normal(0, 0.002, 3)
        turn = rng.normal(0, 0.004)
        self._turn = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
        self._focal_px = SIZE / 2 / (HALF_VIEW_M / HEIGHT_M)
        self._table = self._draw_table()

    def draw(self, joints_rad: F64, puck_m: F64) -> U8:
        """Draw an image, uint8 [SIZE, SIZE, 3] RGB, of joints [5] in rad and puck [2] in m."""
        canvas = self._table.copy()
        light = np.array([0.012, -0.008])
        self._disc(canvas, puck_m + light, 0.0, PUCK_RADIUS_M, _SHADOW)
        self._disc(canvas, puck_m, 0.0, PUCK_RADIUS_M, _PUCK[0])
        self._disc(canvas, puck_m, PUCK_HEIGHT_M, PUCK_RADIUS_M, _PUCK[1])
        self._ring(canvas, joints_rad, light)
        self._links(canvas, joints_rad)
        noise = self._rng.integers(-5, 6, canvas.shape, dtype=np.int16)
        return np.asarray(np.clip(canvas + noise, 0, 255), dtype=np.uint8)

    def _draw_table(self) -> U8:
        coarse = self._rng.normal(0, 6, (8, 8, 1)).astype(np.float32)
        fine = self._rng.normal(0, 5, (48, 48, 1)).astype(np.float32)
        texture = cv2.resize(coarse, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
        texture = texture + cv2.resize(fine, (SIZE, SIZE), interpolation=cv2.INTER_LINEAR)
        slope = self._rng.normal(0, 8, 2)
        grid = np.linspace(-1, 1, SIZE)
        light = slope[0] * grid[:, None] + slope[1] * grid[None, :] + self._rng.normal(0, 6)
        return np.asarray(np.clip(_TABLE + (texture + light)[..., None], 0, 255), dtype=np.uint8)

    def _pixels(self, points_m: F64) -> npt.NDArray[np.int32]:
        """Project world points [n, 3] to fixed-point pixels [n, 2]. Up is +x and left is +y."""
        seen = (points_m[:, :2] - self._eye[:2]) @ self._turn.T
        scale = self._focal_px / (self._eye[2] - points_m[:, 2])
        column = SIZE / 2 - seen[:, 1] * scale
        row = SIZE / 2 - seen[:, 0] * scale
        return np.round((np.stack([column, row], -1) - 0.5) * (1 << _SHIFT)).astype(np.int32)

    def _polygon(self, canvas: U8, points_m: F64, colour: tuple[int, int, int]) -> None:
        cv2.fillPoly(canvas, [self._pixels(points_m)], colour, cv2.LINE_AA, _SHIFT)

    def _disc(
        self, canvas: U8, centre_m: F64, z_m: float, radius_m: float, colour: tuple[int, int, int]
    ) -> None:
        outline = centre_m + radius_m * _CIRCLE
        self._polygon(canvas, np.column_stack([outline, np.full(len(outline), z_m)]), colour)

    def _ring(self, canvas: U8, joints_rad: F64, light: F64) -> None:
        centre = arm.ring_position(joints_rad)
        top = centre[2] + arm.RING_HEIGHT_M
        for xy, z, colour in (
            (centre[:2] + light * top / 0.02, 0.0, _SHADOW),
            (centre[:2], top, _RING),
        ):
            outer = xy + (arm.RING_INNER_M + arm.RING_WALL_M) * _CIRCLE
            inner = xy + arm.RING_INNER_M * _CIRCLE
            heights = np.full(len(outer), z)
            # Both outlines go into one call, as the even-odd rule then leaves the hole open.
            outlines = [self._pixels(np.column_stack([line, heights])) for line in (outer, inner)]
            cv2.fillPoly(canvas, outlines, colour, cv2.LINE_AA, _SHIFT)

    def _links(self, canvas: U8, joints_rad: F64) -> None:
        joints = _joint_points(joints_rad)
        self._disc(canvas, np.zeros(2), 0.08, 0.045, _LINKS[0])
        for i, (width_m, colour) in reversed(
            list(enumerate(zip((0.036, 0.030, 0.020), _LINKS, strict=True)))
        ):
            self._polygon(canvas, _bar(joints[i], joints[i + 1], width_m), colour)


def _joint_points(joints_rad: F64) -> F64:
    """Return shoulder, elbow, wrist and the ring's near rim, [4, 3] m."""
    yaw, shoulder, elbow, wrist, _ = joints_rad
    pitches = np.cumsum([shoulder, elbow, wrist])
    lengths = np.array([arm.UPPER_M, arm.FORE_M, arm.HAND_M - arm.RING_INNER_M - arm.RING_WALL_M])
    along = np.concatenate([[0.0], np.cumsum(lengths * np.cos(pitches))])
    up = arm.SHOULDER_HEIGHT_M + np.concatenate([[0.0], np.cumsum(lengths * np.sin(pitches))])
    return np.stack([along * np.cos(yaw), along * np.sin(yaw), up], axis=-1)


def _bar(start_m: F64, end_m: F64, width_m: float) -> F64:
    """Return the corners [4, 3] of a flat bar between two points."""
    flat = (end_m - start_m)[:2]
    side = np.array([-flat[1], flat[0], 0.0]) / max(float(np.hypot(*flat)), 1e-6) * width_m / 2
    return np.stack([start_m + side, end_m + side, end_m - side, start_m - side])
