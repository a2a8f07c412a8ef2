"""What keeps a thread from running: other threads on its core, and the GIL.

Run delay is the kernel's own account of the time in which a thread could have run and had no core
(schedstat, Documentation/scheduler/sched-stats.rst). Nothing counts the waits for the GIL. What is
measured is how long after its publication a thread that waited for a message gets to it; less the
run delay in that time, this is the wait for the GIL and some 50 us of waking up.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any, Final

from v2a.spans import Histogram

SCHEDSTAT: Final = Path("/proc/thread-self/schedstat")  # ns on a core, ns waited for one, turns


class ThreadMeter:
    """Of the thread that makes it. Others may read `times`, also when the thread has ended."""

    def __init__(self) -> None:
        self.gil_wait = Histogram()
        self._cpu_ns = self._run_delay_ns = self._delay_before_ns = 0
        self._reading = threading.Lock()
        # -1: this kernel keeps no account.
        self._fd = os.open(SCHEDSTAT, os.O_RDONLY | os.O_CLOEXEC) if SCHEDSTAT.exists() else -1
        self._counts = self._fd >= 0

    def waits(self) -> None:
        """The thread goes to wait for a message."""
        self._read()
        self._delay_before_ns = self._run_delay_ns

    def woke(self, published_ns: int, now_ns: int) -> None:
        """It has one at `now_ns`, which was published while it waited."""
        self._read()
        run_delay_ns = self._run_delay_ns - self._delay_before_ns
        self.gil_wait.observe(max(now_ns - published_ns - run_delay_ns, 0))

    def times(self) -> dict[str, Any]:
        """Since the thread began: `cpu_s`, `run_delay_ms`; and `gil_wait`, a summary in ms."""
        self._read()
        found: dict[str, Any] = {}
        if self._counts:
            found = {"cpu_s": self._cpu_ns / 1e9, "run_delay_ms": self._run_delay_ns / 1e6}
        if self.gil_wait.count:
            found["gil_wait"] = self.gil_wait.summary_ms()
        return found

    def close(self) -> None:
        """At the thread's end: keep the last reading."""
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
    """Of the calling thread."""
    if not hasattr(_of_thread, "meter"):
        _of_thread.meter = ThreadMeter()
    found: ThreadMeter = _of_thread.meter
    return found
