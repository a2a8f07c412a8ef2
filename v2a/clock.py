"""Monotonic time in integer nanoseconds, from a clock that tests can replace."""

from __future__ import annotations

import sys
import time
from typing import Protocol


class Clock(Protocol):
    """A source of time. Every loop takes one instead of calling the module `time`."""

    def now_ns(self) -> int:
        """Return monotonic time in nanoseconds. Only differences have a meaning."""
        ...

    def utc_ns(self) -> int:
        """Return the time since 1970 (UTC) in nanoseconds. It may be set, and then jump."""
        ...

    def sleep_until_ns(self, t_ns: int) -> None:
        """Sleep until `t_ns` or a little later. Return at once if `t_ns` has passed."""
        ...


if sys.version_info >= (3, 11):

    def _sleep_until_ns(t_ns: int) -> None:
        # Since CPython 3.11 time.sleep calls clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME)
        # (python/cpython#28111). It resumes the sleep after a signal.
        remaining_ns = t_ns - time.monotonic_ns()
        if remaining_ns > 0:
            time.sleep(remaining_ns * 1e-9)

else:
    # CPython 3.10 sleeps with select(), whose timeout is relative and in microseconds.
    import ctypes
    import errno
    import os

    _TIMER_ABSTIME = 1  # <time.h> on Linux

    class _Timespec(ctypes.Structure):
        _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))

    _libc = ctypes.CDLL(None)

    def _sleep_until_ns(t_ns: int) -> None:
        deadline = _Timespec(*divmod(t_ns, 1_000_000_000))
        while time.monotonic_ns() < t_ns:
            code = _libc.clock_nanosleep(
                time.CLOCK_MONOTONIC, _TIMER_ABSTIME, ctypes.byref(deadline), None
            )
            if code not in (0, errno.EINTR):
                raise OSError(code, os.strerror(code))


class MonotonicClock:
    """The machine's monotonic clock, the same in every process of one boot."""

    def now_ns(self) -> int:
        """See `Clock`."""
        return time.monotonic_ns()

    def utc_ns(self) -> int:
        """See `Clock`."""
        return time.time_ns()

    def sleep_until_ns(self, t_ns: int) -> None:
        """See `Clock`. The deadline is absolute, so a loop's period does not drift."""
        _sleep_until_ns(t_ns)


class FakeClock:
    """A clock that moves only on request, for tests and for lockstep simulation."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """See `Clock`."""
        return self._now_ns

    def utc_ns(self) -> int:
        """See `Clock`. The virtual time begins in 1970, so that runs are equal byte by byte."""
        return self._now_ns

    def advance_ns(self, dt_ns: int) -> None:
        """Move time forward by `dt_ns`. Raises ValueError if it is negative."""
        if dt_ns < 0:
            raise ValueError(f"monotonic time cannot go back (dt_ns={dt_ns})")
        self._now_ns += dt_ns

    def sleep_until_ns(self, t_ns: int) -> None:
        """Set time forward to `t_ns` without sleeping. Time never goes back."""
        self._now_ns = max(self._now_ns, t_ns)
