"""Films the demo's teacher, and writes the clip that the commands of the docs play.

    python -m tools.make_clip demo/clip.mp4

The clip shows six episodes of the simulated arm, 20 pictures a second. It has the licence of the
rest. Needs mujoco and PyAV (the extras [demo] and [video]).
"""

from __future__ import annotations

import sys
from fractions import Fraction
from pathlib import Path
from typing import Final

import av
import numpy as np
import numpy.typing as npt

from demo import expert, task
from demo.arm import F64
from demo.collect import play, teacher
from demo.physics import World
from demo.picture import SIZE, U8, Painter

EPISODES: Final = 6
FPS: Final = round(1 / expert.STEP_S)
# The index comes first, so that a player can begin before it has the whole file.
CONTAINER: Final = {"movflags": "faststart"}
# 28 halves the size of x264's default; the sensor noise of the pictures costs most of the bits.
OPTIONS: Final = {"crf": "28", "preset": "veryslow", "g": str(FPS)}


def film(seed: int) -> list[U8]:
    """Return the pictures of one episode that the teacher plays, uint8 [SIZE, SIZE, 3] RGB each."""
    painter = Painter(np.random.default_rng(seed))
    pictures: list[U8] = []

    def driver(step: int, world: World, command: F64, image: npt.NDArray[np.uint8]) -> F64:
        pictures.append(painter.draw(world.joints_rad, world.puck_m))
        return teacher(step, world, command, image)

    level: task.Level = task.LEVELS[seed % len(task.LEVELS)]
    play(task.scenario(seed, level), driver, np.random.default_rng(seed))
    return pictures


def write(path: Path, pictures: list[U8]) -> None:
    """Encode the pictures as H.264, at `FPS`."""
    with av.open(str(path), "w", options=CONTAINER) as container:
        stream = container.add_stream("libx264", rate=FPS, options=OPTIONS)
        stream.width = stream.height = SIZE
        stream.pix_fmt = "yuv420p"
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def main() -> None:
    write(Path(sys.argv[1]), [picture for seed in range(EPISODES) for picture in film(seed)])


if __name__ == "__main__":
    main()
