"""Plug a camera of your own into the runtime: any object with `read` and `close`.

    python examples/own_camera.py

`read` blocks until the next picture and says when it was taken. This camera draws a white bar that
moves to the right. The demo's policy sees it for three seconds and moves virtual servos.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from hw_drivers.cameras.camera import Frame
from runtime.config.robot_yaml import RunConfig
from runtime.supervisor import Runtime
from runtime.workers import build_workers
from v2a.bundle import load_bundle
from v2a.clock import Clock, MonotonicClock
from v2a.config import load_yaml
from v2a.spans import Tracer

DEMO = Path(__file__).parents[1] / "demo"
PERIOD_NS = 50_000_000


class BarCamera:
    """RGB uint8 [192, 192, 3], twenty pictures a second, with a bar at another column in each."""

    def __init__(self, clock: Clock) -> None:
        self._clock, self._due_ns, self.seq = clock, clock.now_ns(), 0

    def read(self, timeout_s: float) -> Frame:
        """The next picture. Raise `v2a.errors.CameraError` if none comes within `timeout_s`."""
        self._due_ns = max(self._due_ns + PERIOD_NS, self._clock.now_ns())
        self._clock.sleep_until_ns(self._due_ns)
        self.seq += 1
        image = np.zeros((192, 192, 3), np.uint8)
        image[:, self.seq % 192] = 255
        return Frame(self.seq, self._due_ns, 0, image)  # 0: the scene was never reset

    def close(self) -> None:
        """There is no device to give back."""


def main() -> None:
    config = load_yaml(DEMO / "robot.yaml", RunConfig)
    camera = BarCamera(clock := MonotonicClock())
    bundle, tracer = load_bundle(DEMO / "bundle"), Tracer()
    workers = build_workers(bundle, "virtual", camera, config, clock, tracer)
    with Runtime(workers) as runtime:
        runtime.arm()
        runtime.wait(3.0)
    chunk = workers.mailboxes.chunk.get()
    print(f"{camera.seq} pictures; the newest chunk is number {chunk.seq if chunk else 0}")


if __name__ == "__main__":
    main()
