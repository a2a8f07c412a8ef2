"""The signals that end a program that holds a robot.

The table is computed, so that a signal which nobody thought of also ends the program in order:
by default it would kill the program with torque on. Left out are signals that end nothing
(`_HARMLESS`), that report lost output (`_LOST_OUTPUT`) or that suspend a background job (`JOBS`),
and `CRASHES`, behind which the program cannot go on.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

_HARMLESS: Final = {signal.SIGCHLD, signal.SIGCONT, signal.SIGURG, signal.SIGWINCH}
_LOST_OUTPUT: Final = {signal.SIGPIPE, signal.SIGXFSZ}  # Python ignores them from its start
_UNCATCHABLE: Final = {signal.SIGKILL, signal.SIGSTOP}
# A background job that uses the terminal gets these, and would stand still with torque on.
JOBS: Final = frozenset({signal.SIGTTIN, signal.SIGTTOU})
# The kernel sends these for a crash, and then a Python handler never runs. While they are blocked,
# a crash still kills, and one that another program sends stays pending (sigprocmask(2)).
CRASHES: Final = frozenset({signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL})
ENDS: Final = frozenset(
    signal.valid_signals() - _HARMLESS - _LOST_OUTPUT - _UNCATCHABLE - JOBS - CRASHES
)


def heard() -> frozenset[int]:
    """Return the signals that end this process: `ENDS`, less SIGHUP under nohup.

    A shell's `&` has SIGINT and SIGQUIT ignored. They count all the same: who sends them to a robot
    wants it to stop.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    return ENDS - {signal.SIGHUP} if ignored else ENDS


@dataclass(slots=True)
class Ending:
    """The last signal that came, and what the next one does `instead` of raising SystemExit."""

    number: int | None = None
    instead: Callable[[], None] | None = None

    @property
    def exit_code(self) -> int | None:
        """128 + signal, the convention of shells; None without a signal."""
        return None if self.number is None else 128 + self.number


@contextmanager
def one_signal_ends_it() -> Iterator[Ending]:
    """Inside this context the first signal of `heard` raises SystemExit in the main thread.

    Later ones are ignored, because they could interrupt the torque-off.
    """
    ending = Ending()

    def end(number: int, _frame: object) -> None:
        ending.number = number
        if ending.instead is not None:
            ending.instead()
            return
        for each in before:
            signal.signal(each, signal.SIG_IGN)
        sys.exit(ending.exit_code)

    before = {each: signal.signal(each, end) for each in heard()}
    jobs = {each: signal.signal(each, signal.SIG_IGN) for each in JOBS}
    try:
        yield ending
    finally:
        for each, handler in before.items():
            if signal.getsignal(each) is end:  # no signal came: the process goes on
                signal.signal(each, handler)
        for each, handler in jobs.items():
            signal.signal(each, handler)


@contextmanager
def signals_held() -> Iterator[None]:
    """Inside this context no signal of `ENDS` interrupts this thread; it comes afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
