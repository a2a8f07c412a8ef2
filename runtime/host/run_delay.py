"""Measures how long a thread waits for a CPU core and for the GIL.

The kernel counts run delay: the time in which a thread is runnable but has no core (schedstat,
Documentation/scheduler/sched-stats.rst). Nothing counts waits for the GIL, so we derive them. A
waiting thread wakes some time after a message is published. That time minus the run delay is the
wait for the GIL, plus about 50 us of waking up.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Final

from v2a.spans import Histogram

SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")  # ns on a core, ns waited for one, turns


class ThreadMeter:
    """Measures the thread that creates it. Other threads may call `times`, even after its end."""

    def __init__(self) -> None:
        self.gil_wait = Histogram()
        self._cpu_ns = self._run_delay_ns = self._delay_before_ns = 0
        self._reading = threading.Lock()
        # -1: the kernel was built without schedstats.
        self._fd = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC) if SCHEDSTAT.exists() else -1
        self._counts = self._fd >= 0

    def waits(self) -> None:
        """Call this before the thread waits for a message."""
        self._read()
        self._delay_before_ns = self._run_delay_ns

    def woke(self, published_ns: int, now_ns: int) -> None:
        """Call this when the thread has a message that was published while it waited."""
        self._read()
        run_delay_ns = self._run_delay_ns - self._delay_before_ns
        self.gil_wait.observe(max(now_ns - published_ns - run_delay_ns, 0))

    def times(self) -> dict[str, Any]:
        """Return `cpu_s`, `run_delay_ms` and `gil_wait` (a summary in ms) since the thread began.

        The first two are missing if the kernel was built without schedstats.
        """
        self._read()
        found: dict[str, Any] = {}
        if self._counts:
            found = {"cpu_s": self._cpu_ns / 1e9, "run_delay_ms": self._run_delay_ns / 1e6}
        if self.gil_wait.count:
            found["gil_wait"] = self.gil_wait.summary_ms()
        return found

    def close(self) -> None:
        """Take the last reading. Call this at the thread's end."""
        self._read()
        with self._reading:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1

    def _read(self) -> None:
        with self._reading:
            if self._fd >= 0:
                words = os.pread(self._fd, 64, 0).split()
                self._cpu_ns, self._run_delay_ns = int(words[0]), int(words[1])


_of_thread = threading.local()


def meter() -> ThreadMeter:
    """Return the meter of the calling thread, created on the first call."""
    if not hasattr(_of_thread, "meter"):
        _of_thread.meter = ThreadMeter()
    found: ThreadMeter = _of_thread.meter
    return found
