"""Turns whatever a video library returns into RGB, uint8 [H, W, 3], or says why it cannot."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from hw_drivers.cameras.camera import Image
from v2a.errors import CameraError

Picture = npt.NDArray[Any]
Sizes = tuple[tuple[int, int], ...]

# GStreamer's and V4L2's names of the same layout -> OpenCV's code to RGB.
_PLANAR: Final = {  # [H * 3 / 2, W]
    "NV12": cv2.COLOR_YUV2RGB_NV12,
    "NV21": cv2.COLOR_YUV2RGB_NV21,
    "I420": cv2.COLOR_YUV2RGB_I420,
    "YU12": cv2.COLOR_YUV2RGB_I420,
    "YV12": cv2.COLOR_YUV2RGB_YV12,
}
_PACKED: Final = {  # [H, W, 2]
    "UYVY": cv2.COLOR_YUV2RGB_UYVY,
    "YUY2": cv2.COLOR_YUV2RGB_YUY2,
    "YUYV": cv2.COLOR_YUV2RGB_YUY2,
    "YVYU": cv2.COLOR_YUV2RGB_YVYU,
}
_RGB_FIRST: Final = ("RGB", "RGBA", "RGBX", "RGB3")
# Bits to drop of a 16-bit sample. V4L2's Y10 and Y12 fill the low bits, Y16 all of them.
_SHIFT: Final = {"Y10": 2, "Y12": 4, "Y14": 6}
_JPEG: Final = b"\xff\xd8"


class Conversion(NamedTuple):
    """A way to RGB: its name for the report, empty for plain BGR, and the function."""

    name: str
    to_rgb: Callable[[Picture], Picture]


def format_of_pipeline(pipeline: str) -> str | None:
    """Return the last pixel format that the text of a GStreamer pipeline names."""
    named = re.findall(r"format\s*=\s*(?:\(string\))?\s*\"?(\w+)", pipeline)
    return str(named[-1]).upper() if named else None


def conversion_for(
    picture: object, told: str | None, sizes: Sizes, name: str, fix: str
) -> Conversion:
    """Choose the way to RGB for pictures like this one.

    `told` is the pixel format that the source names, and `sizes` are the (width, height) that it
    may have. Raises CameraError, with `name` and `fix`, for what is no picture, and for YUV in an
    unknown layout.
    """
    if not isinstance(picture, np.ndarray) or not picture.size or picture.ndim not in (2, 3):
        shape = getattr(picture, "shape", type(picture).__name__)
        raise CameraError(f"{name}: delivers no picture (shape {shape}); {fix}")
    if picture.dtype == np.uint16:
        shift = _SHIFT.get(told or "", 8)
        inner = conversion_for((picture >> 8).astype(np.uint8), told, sizes, name, fix)
        label = f"{inner.name or 'BGR'}, 16 bit, without the lowest {shift} bits"

        def upper(wide: Picture) -> Picture:
            return inner.to_rgb(np.minimum(wide >> shift, 255).astype(np.uint8))

        return Conversion(label, upper)
    found = _eight_bit(picture, told, sizes) if picture.dtype == np.uint8 else None
    if found is None:
        shape = "x".join(map(str, picture.shape))
        raise CameraError(
            f"{name}: a picture is {picture.dtype} [{shape}]"
            f"{f', {told}' if told else ''}, and not BGR; {fix}"
        )
    return found


def _eight_bit(picture: Picture, told: str | None, sizes: Sizes) -> Conversion | None:
    channels = picture.shape[2] if picture.ndim == 3 else 1
    if channels == 1:
        return _one_channel(picture, told, sizes)
    if channels == 2 and told in _PACKED and picture.shape[1] % 2 == 0:
        code = _PACKED[told]
        return Conversion(told, lambda yuv: cv2.cvtColor(yuv, code))
    if channels in (3, 4):
        if told in _RGB_FIRST:
            return Conversion(told, lambda rgb: rgb[..., :3])
        if channels == 4:
            return Conversion("BGRx", lambda bgrx: cv2.cvtColor(bgrx, cv2.COLOR_BGRA2RGB))
        return Conversion("", rgb_of)
    return None


def _one_channel(picture: Picture, told: str | None, sizes: Sizes) -> Conversion | None:
    rows, columns = picture.shape[:2]
    if 1 in (rows, columns):
        jpeg = picture.tobytes().startswith(_JPEG)
        return Conversion("JPEG", _decode_jpeg) if jpeg else None
    if told in _PLANAR and rows % 3 == 0 and columns % 2 == 0:
        code = _PLANAR[told]
        return Conversion(told, lambda yuv: cv2.cvtColor(yuv.reshape(rows, columns), code))
    if any((columns, 2 * rows) == (width, 3 * height) for width, height in sizes):
        return None  # YUV 4:2:0 in an unknown order
    return Conversion("gray", lambda gray: np.repeat(gray.reshape(rows, columns, 1), 3, axis=2))


def _decode_jpeg(data: Picture) -> Picture:
    bgr = cv2.imdecode(data.reshape(-1), cv2.IMREAD_COLOR)
    if bgr is None:
        raise CameraError("a JPEG picture cannot be decoded; the link is damaged")
    return rgb_of(bgr)


def rgb_of(bgr: Picture) -> Image:
    """Return a picture of OpenCV, uint8 [H, W, 3] BGR, as RGB. Four times as fast as with numpy."""
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)


def contiguous(rgb: Picture) -> Image:
    """Return the picture as uint8 [H, W, 3] in one block of memory."""
    return np.ascontiguousarray(rgb, dtype=np.uint8)
