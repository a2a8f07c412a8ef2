"""The recorded messages that no mailbox carries, and how values become JSON and PNG."""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel

from hw_drivers.robot.robot import Health
from runtime.mailbox import Image

INFO, WARNING, ERROR, FATAL = 2, 3, 4, 5  # levels of foxglove.Log


@dataclass(frozen=True, slots=True)
class Spans:
    """Spans of one thread; `rows` is int64 [n, 4]: index of the stage, t0_ns, t1_ns, arg."""

    thread: str
    rows: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SafetyChange:
    """One change of the safety state (a value of `runtime.safety.safety.State`), and why."""

    t_ns: int
    state: str
    reason: str


@dataclass(frozen=True, slots=True)
class Reset:
    """The start of a new episode. Without an instruction the previous one stays valid."""

    t_ns: int
    epoch: int
    instruction: str | None


@dataclass(frozen=True, slots=True)
class LogLine:
    """A fault or a warning; `level` is INFO, WARNING, ERROR or FATAL."""

    t_ns: int
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class RunCounters:
    """Counters from the start of the run to `t_ns`. `counts`: worker -> event -> how often."""

    t_ns: int
    ticks: int
    missed_ticks: dict[str, int]
    counts: dict[str, dict[str, int]]
    health: Health | None
    torque_fault: str | None
    epoch: int


def to_json(value: Any, indent: int | None = None) -> str:
    """JSON of a model, or of plain values and arrays. NaN and infinity become null."""
    if isinstance(value, BaseModel):
        value = value.model_dump(mode="json")
    return json.dumps(_plain(value), indent=indent, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, np.ndarray):
        finite = value.dtype.kind != "f" or np.isfinite(value).all()
        return value.tolist() if finite else _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


PIXELS_MAX: Final = 1 << 25  # 33 million: beyond every camera of a policy
_PNG_HEAD: Final = re.compile(rb"\x89PNG\r\n\x1a\n....IHDR(....)(....)", re.DOTALL)

NO_IMAGE: Final[Image] = np.zeros((0, 0, 3), np.uint8)


def to_png(image: Image) -> bytes:
    """PNG of uint8 [H, W, 3] RGB. Raises ModuleNotFoundError if OpenCV is not installed."""
    import cv2  # here: the base install has no OpenCV

    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".png", bgr)[1].tobytes()  # OpenCV's default compression is its fastest


def from_png(data: bytes) -> Image:
    """uint8 [H, W, 3] RGB.

    Raises ValueError if `data` is no PNG or has more than `PIXELS_MAX` pixels, and
    ModuleNotFoundError if OpenCV is not installed.
    """
    import cv2

    size = _PNG_HEAD.match(data)
    if (
        size is None
        or math.prod(int.from_bytes(side, "big") for side in size.groups()) > PIXELS_MAX
    ):
        raise ValueError("its picture is no PNG, or far too large")
    bgr = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if bgr is None:
        raise ValueError("its picture cannot be decoded")
    return cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB).astype(np.uint8, copy=False)
