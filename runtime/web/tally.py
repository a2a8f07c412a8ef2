"""Counts durations since the start for Prometheus, recent durations for the page, and rates."""

from __future__ import annotations

from collections import deque
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.web.live_status import RecentTimes

# Upper ends of the buckets in seconds: a bus write takes 0.1 ms, a video model seconds.
EDGES_S: Final = (
    0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0,
)  # fmt: skip
_EDGES_NS: Final = np.array([round(edge * 1e9) for edge in EDGES_S], np.int64)
RECENT: Final = 500  # 10 s of control ticks at 50 Hz
RATE_OVER: Final = 20
STOPPED_NS: Final = 2_000_000_000


class Tally:
    """Counts durations. A bucket includes its upper edge, as in Prometheus."""

    def __init__(self) -> None:
        self.buckets = np.zeros(len(EDGES_S) + 1, np.int64)  # the last one: longer than every edge
        self.total_ns = 0
        self._recent: deque[int] = deque(maxlen=RECENT)

    def add(self, durations_ns: npt.NDArray[np.int64]) -> None:
        """Count durations, int64 [n] in ns."""
        which = np.searchsorted(_EDGES_NS, durations_ns, side="left")
        self.buckets += np.bincount(which, minlength=len(self.buckets))
        self.total_ns += int(durations_ns.sum())
        self._recent.extend(durations_ns[-RECENT:].tolist())

    @property
    def count(self) -> int:
        """Number of durations since the start."""
        return int(self.buckets.sum())

    def recent_ms(self) -> RecentTimes:
        """Return the newest duration, and median, p99 and maximum of the last `RECENT` ones."""
        last = np.array(self._recent, np.float64) / 1e6
        p50, p99 = np.quantile(last, [0.5, 0.99])
        return RecentTimes(last=last[-1], p50=p50, p99=p99, max=last.max())


class Rate:
    """Measures how often an event happens, by the times of its last `RATE_OVER` occurrences."""

    def __init__(self) -> None:
        self.count = 0
        self._times_ns: deque[int] = deque(maxlen=RATE_OVER)

    def add(self, t_ns: int) -> None:
        """Count one event."""
        self.count += 1
        self._times_ns.append(t_ns)

    def hz(self, now_ns: int) -> float:
        """Return events per second: 0 before the second one and after `STOPPED_NS` without one."""
        times_ns = self._times_ns
        if len(times_ns) < 2 or now_ns - times_ns[-1] > STOPPED_NS:
            return 0.0
        span_ns = times_ns[-1] - times_ns[0]
        return (len(times_ns) - 1) * 1e9 / span_ns if span_ns > 0 else 0.0
