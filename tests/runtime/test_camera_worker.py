"""The camera worker at its border: the picture contract, the rate, the history, what was lost."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_drivers.cameras.camera import CameraReport, Frame
from runtime.camera_worker import CameraWorker
from runtime.mailbox import Mailboxes
from runtime.policy.system2 import pick_pictures
from runtime.status import slow_camera
from tests.runtime.conftest import SIZE, World, run_config
from v2a.bundle import Bundle
from v2a.clock import FakeClock
from v2a.errors import CameraError
from v2a.spans import SpanRing

MS = 1_000_000
IMAGE = np.zeros((SIZE, SIZE, 3), np.uint8)


class Feed:
    """A camera that stamps its pictures with these times."""

    def __init__(self, times_ms: list[float], image: Any = IMAGE, step: int = 1) -> None:
        self._times = [round(t * MS) for t in times_ms]
        self._image, self._step = image, step
        self._number = -1
        self.report = CameraReport(facts={"size": "8x8"})

    def read(self, timeout_s: float) -> Frame:
        self._number += 1
        return Frame(self._number * self._step, self._times[self._number], 0, self._image)

    def close(self) -> None: ...


def worker_of(bundle: Bundle, feed: Feed, steps: int) -> CameraWorker:
    """A worker that has taken that many pictures."""
    clock = FakeClock(start_ns=10**15)
    spec = bundle.manifest.cameras[0]
    worker = CameraWorker(feed, spec, run_config().camera, Mailboxes(), clock, SpanRing())
    for _ in range(steps):
        worker.step(0)
    return worker


@pytest.mark.parametrize(
    ("image", "what"),
    [
        (IMAGE[..., 0], r"uint8 \[8, 8\]"),
        (np.zeros((8, 8, 4), np.uint8), r"uint8 \[8, 8, 4\]"),
        (IMAGE.astype(np.uint16), r"uint16 \[8, 8, 3\]"),
        (IMAGE[:0], r"uint8 \[0, 8, 3\]"),
    ],
)
def test_what_is_no_picture_ends_here_and_not_in_the_recorder(
    bundle: Bundle, image: Any, what: str
) -> None:
    with pytest.raises(CameraError, match=rf"picture 0 is {what}; a camera must deliver RGB"):
        worker_of(bundle, Feed([1.0], image), 1)


def test_a_rate_is_measured_once_there_are_enough_pictures(bundle: Bundle) -> None:
    times_ms = [200.0 * k for k in range(40)]
    assert worker_of(bundle, Feed(times_ms), 5).rate_hz() is None
    worker = worker_of(bundle, Feed(times_ms), 40)
    assert worker.rate_hz() == pytest.approx(5.0)
    assert worker.facts() == {"size": "8x8", "rate measured": "5.0 Hz"}


def test_a_camera_that_becomes_slow_is_measured_as_it_is_now(bundle: Bundle) -> None:
    times_ms = [50.0 * k for k in range(200)] + [10_000 + 250.0 * k for k in range(20)]
    assert worker_of(bundle, Feed(times_ms), 220).rate_hz() == pytest.approx(4.0)


def test_pictures_that_the_source_dropped_are_counted(bundle: Bundle) -> None:
    times_ms = [50.0 * k for k in range(10)]
    assert worker_of(bundle, Feed(times_ms), 10).counts["dropped_by_source"] == 0
    assert worker_of(bundle, Feed(times_ms, step=3), 10).counts["dropped_by_source"] == 18


@pytest.mark.parametrize("hz", [15, 20, 30, 60, 120, 240])
def test_a_camera_faster_than_its_setting_also_fills_the_history(bundle: Bundle, hz: int) -> None:
    spec = bundle.manifest.cameras[0]
    worker = worker_of(bundle, Feed([1000 * k / hz for k in range(400)]), 399)
    message = worker.step(0)
    assert message is not None
    times_ns = np.array([t_ns for t_ns, _ in message.history])
    picked = pick_pictures(times_ns, spec.history, round(spec.interval_s * 1e9))
    assert picked is not None
    assert len(message.history) <= (spec.history - 1) * spec.interval_s * hz + 7


def test_a_slow_camera_is_told_with_its_rate_and_what_it_means(bundle: Bundle) -> None:
    world = World(bundle)
    told: Any = SimpleNamespace(
        config=world.workers.config,
        bundle=bundle,
        system2=world.workers.system2,
        camera=worker_of(bundle, Feed([200.0 * k for k in range(40)]), 40),
    )
    text = slow_camera(told)
    assert text is not None
    assert "delivers 5.0 pictures a second, camera.fps asks for 20, and the policy needs" in text
    assert "no condition, so the robot does not move" in text
    told.camera = worker_of(bundle, Feed([50.0 * k for k in range(100)]), 100)
    assert slow_camera(told) is None
