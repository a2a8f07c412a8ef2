"""Pictures to an MP4 file that training can read in any order. Needs PyAV, the extra [lerobot]."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, Final

from runtime.mailbox import Image

CODEC: Final = "h264"
# Colour in full: at a policy's size halved colour is seen. On camera pictures of 96 x 96 the mean
# error was 1.3 of 255 levels, against 2.1 with yuv420p, in files of the same size.
PIXELS: Final = "yuv444p"
# 18 is what x264 calls visually lossless. A key picture every 2, as lerobot has it, and none that
# leans on a later one.
OPTIONS: Final = {"crf": "18", "g": "2", "bf": "0"}

VIDEO: Final = {
    "video.codec": CODEC,
    "video.pix_fmt": PIXELS,
    "video.channels": 3,
    "video.is_depth_map": False,
    "has_audio": False,
}
"""How lerobot's info.json describes these files; size and rate come on top."""


@contextmanager
def mp4(path: Path, fps: int) -> Iterator[Callable[[Image], None]]:
    """A new file; the function writes one picture, uint8 [H, W, 3] RGB, for 1 / `fps` s."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream: Any = container.add_stream(CODEC, rate=fps, options=OPTIONS)
        stream.pix_fmt = PIXELS
        written = 0

        def write(picture: Image) -> None:
            nonlocal written
            if written == 0:
                stream.height, stream.width = picture.shape[:2]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = written, Fraction(1, fps)
            container.mux(stream.encode(frame))
            written += 1

        yield write
        container.mux(stream.encode())
