"""System 2: the slow video model. Makes a condition for System 1 from the recent pictures."""

from __future__ import annotations

from collections import Counter

import numpy as np
import numpy.typing as npt

from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import ConditionMsg, FrameMsg, Image, Mailboxes
from runtime.policy.graphs import PolicyGraphs
from v2a.spans import SpanRing

Times = npt.NDArray[np.int64]


class System2:
    """Computes a condition from the newest frame with a full history, at most once per period."""

    name = "system2"

    def __init__(
        self,
        graphs: PolicyGraphs,
        mailboxes: Mailboxes,
        config: RunConfig,
        ring: SpanRing,
    ) -> None:
        camera = graphs.bundle.manifest.cameras[0]
        self._graphs = graphs
        self._mailboxes = mailboxes
        # As in System 1, a frame up to half a frame early counts.
        self._period_ns = round((config.system2.period_s - 0.5 / config.camera.fps) * 1e9)
        self._count = camera.history
        self._interval_ns = round(camera.interval_s * 1e9)
        self.ring = ring
        self._seq = 0
        self._started: tuple[int, int] = (-1, 0)  # (epoch, time) of the last start
        self.counts: Counter[str] = Counter()

    def step(self, now_ns: int) -> ConditionMsg | None:
        """Return a condition, or None while it is too early or the history is too short."""
        epoch, started_ns = self._started
        if epoch == self._mailboxes.epoch.number and now_ns - started_ns < self._period_ns:
            return None
        return self.compute(now_ns)

    def compute(self, now_ns: int) -> ConditionMsg | None:
        """Return a condition from the newest frame at once, or None until its history is full."""
        frame = self._mailboxes.frame.get()
        clip = None if frame is None else self._clip(frame)
        if frame is None or clip is None:
            return None
        self._started = (frame.epoch, now_ns)
        tensors = self._graphs.condition(clip, self.ring, frame.seq)
        self._seq += 1
        self.counts["conditions"] += 1
        return ConditionMsg(
            seq=self._seq,
            t_capture_ns=frame.t_capture_ns,
            t_publish_ns=0,
            parent_seq=frame.seq,
            epoch=frame.epoch,
            tensors=tensors,
            t_frame_ns=frame.t_capture_ns,
        )

    def _clip(self, frame: FrameMsg) -> Image | None:
        times_ns = np.array([t_ns for t_ns, _ in frame.history], dtype=np.int64)
        picked = pick_pictures(times_ns, self._count, self._interval_ns)
        if picked is None:
            self.counts["short_history"] += 1
            return None
        self.counts["pictures"] += self._count
        self.counts["repeated_pictures"] += self._count - len(np.unique(picked))
        return np.stack([frame.history[index][1] for index in picked])


def pick_pictures(times_ns: Times, count: int, interval_ns: int) -> Times | None:
    """Pick `count` pictures that are `interval_ns` apart, counted back from the newest one.

    `times_ns` are the capture times, int64 [n] ns, in order. Returns the indices of the nearest
    pictures, int64 [count], oldest first. Returns None if the history is too short, as at the
    start of an episode, or has a gap.

    A picture may stand for a time up to one interval away. So jitter and a single lost frame do no
    harm, and a camera of half the rate gives every picture twice.
    """
    wanted_ns = times_ns[-1] - np.arange(count - 1, -1, -1, dtype=np.int64) * interval_ns
    if times_ns[0] > wanted_ns[0] + interval_ns // 2:
        return None
    distance_ns = np.abs(times_ns[np.newaxis, :] - wanted_ns[:, np.newaxis])
    nearest: Times = np.argmin(distance_ns, axis=1)
    if np.any(distance_ns[np.arange(count), nearest] > interval_ns):
        return None
    return nearest
