"""Measures how long a thread waits for a CPU core and for the GIL.

Run delay is the time in which a thread was ready to run and had no core. The kernel counts it
(schedstat, Documentation/scheduler/sched-stats.rst). Nothing counts the waits for the GIL, so they
are estimated: the delay from a message's publication to the wake-up of a thread that waited for it,
less the run delay in that time. About 50 us of this estimate are the wake-up itself.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Final

from v2a.measured import Measured, Times, absent
from v2a.spans import Histogram

SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")  # ns on a core, ns waited for one, turns


class ThreadTimes(Measured):
    """CPU time and waits of one thread since it began.

    `cpu_s` and `run_delay_ms` are missing if the kernel was built without schedstats. `gil_wait` is
    missing if the thread never waited for a message.
    """

    cpu_s: float | None = absent("time on a core, s")
    run_delay_ms: float | None = absent("time ready to run without a core, ms")
    gil_wait: Times | None = absent("from a message's publication to the wake-up, less run delay")


class ThreadMeter:
    """Measures the thread that makes it. Any thread may read `times`, also after its end."""

    def __init__(self) -> None:
        self.gil_wait = Histogram()
        self._cpu_ns = self._run_delay_ns = self._delay_before_ns = 0
        self._reading = threading.Lock()
        # -1: this kernel has no schedstats.
        self._fd = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC) if SCHEDSTAT.exists() else -1
        self._counts = self._fd >= 0

    def waits(self) -> None:
        """Call before the thread waits for a message."""
        self._read()
        self._delay_before_ns = self._run_delay_ns

    def woke(self, published_ns: int, now_ns: int) -> None:
        """Call at `now_ns`, after a wait that ended with a message of `published_ns`."""
        self._read()
        run_delay_ns = self._run_delay_ns - self._delay_before_ns
        self.gil_wait.observe(max(now_ns - published_ns - run_delay_ns, 0))

    def times(self) -> ThreadTimes:
        """CPU time and waits since the thread began."""
        self._read()
        return ThreadTimes(
            cpu_s=self._cpu_ns / 1e9 if self._counts else None,
            run_delay_ms=self._run_delay_ns / 1e6 if self._counts else None,
            gil_wait=Times.of(self.gil_wait) if self.gil_wait.count else None,
        )

    def close(self) -> None:
        """Keep the last reading; call at the thread's end."""
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
    """The meter of the calling thread."""
    if not hasattr(_of_thread, "meter"):
        _of_thread.meter = ThreadMeter()
    found: ThreadMeter = _of_thread.meter
    return found
