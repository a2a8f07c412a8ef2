"""Joins the images of several episodes to one animated mosaic.

A tile's frame shows the result: green for a success, red for a failure.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Final

import cv2
import numpy as np
from PIL import Image

from demo.picture import U8
from demo.plant import Result

FRAME_MS: Final = 50
_PAUSE_MS: Final = 900
_BORDER: Final = 4
_RUNNING, _WON, _LOST = (70, 76, 84), (64, 160, 96), (196, 72, 60)

Film = tuple[Result, tuple[U8, ...]]


def mosaic(films: Sequence[Film], columns: int) -> list[U8]:
    """Return the frames of the mosaic, uint8 [H, W, 3] RGB each.

    A film that has ended keeps its last image, framed by its result.
    """
    length = max(len(pictures) for _, pictures in films)
    return [_grid([_tile(film, t) for film in films], columns) for t in range(length)]


def animation(films: Sequence[Film], columns: int = 3) -> bytes:
    """Encode the mosaic as an endless WebP in real time."""
    frames = [Image.fromarray(frame) for frame in mosaic(films, columns)]
    durations = [FRAME_MS] * (len(frames) - 1) + [_PAUSE_MS]
    out = io.BytesIO()
    frames[0].save(
        out,
        "WEBP",
        save_all=True,
        append_images=frames[1:],
        duration=durations,
        loop=0,
        quality=60,
        method=4,
    )
    return out.getvalue()


def _tile(film: Film, t: int) -> U8:
    result, pictures = film
    over = t >= len(pictures) - 1
    colour = (_WON if result.success else _LOST) if over else _RUNNING
    picture = pictures[min(t, len(pictures) - 1)]
    return np.asarray(
        cv2.copyMakeBorder(picture, *(_BORDER,) * 4, cv2.BORDER_CONSTANT, value=colour),
        dtype=np.uint8,
    )


def _grid(tiles: Sequence[U8], columns: int) -> U8:
    blank = np.zeros_like(tiles[0])
    padded = [*tiles, *[blank] * (-len(tiles) % columns)]
    rows = [np.hstack(padded[i : i + columns]) for i in range(0, len(padded), columns)]
    return np.vstack(rows)
