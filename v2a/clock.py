"""Time: monotonic, in integer nanoseconds, from a clock that tests can replace."""

from __future__ import annotations

import sys
import time
from typing import Protocol


class Clock(Protocol):
    """What every loop takes instead of calling `time` itself."""

    def now_ns(self) -> int:
        """Monotonic time in nanoseconds; only differences mean anything."""
        ...

    def sleep_until_ns(self, t_ns: int) -> None:
        """Return at `t_ns` or later; at once if that has passed."""
        ...


if sys.version_info >= (3, 11):

    def _sleep_until_ns(t_ns: int) -> None:
        # time.sleep is clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME) since CPython 3.11
        # (python/cpython#28111), and goes on sleeping after a signal.
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

    def sleep_until_ns(self, t_ns: int) -> None:
        """See `Clock`; an absolute deadline, so a loop's period does not drift."""
        _sleep_until_ns(t_ns)


class FakeClock:
    """A clock that moves only when told to: for tests and for lockstep simulation."""

    def __init__(self, start_ns: int = 0) -> None:
        self._now_ns = start_ns

    def now_ns(self) -> int:
        """See `Clock`."""
        return self._now_ns

    def advance_ns(self, dt_ns: int) -> None:
        """Move time forward by `dt_ns` >= 0."""
        if dt_ns < 0:
            raise ValueError(f"monotonic time cannot go back (dt_ns={dt_ns})")
        self._now_ns += dt_ns

    def sleep_until_ns(self, t_ns: int) -> None:
        """Set time forward to `t_ns` at once; never back."""
        self._now_ns = max(self._now_ns, t_ns)
