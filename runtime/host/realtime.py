"""What the control process asks of the system so that it wakes in time, and what it was given.

A process of its own and SCHED_FIFO together keep a Python loop on its grid beside any load; either
alone does not (docs/run.md). A garbage collection would stop it for 70 ms and more.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable

from v2a.errors import ConfigError

FIFO_PRIORITY = 50
REFUSED = "refused: "

_MCL_CURRENT, _MCL_FUTURE = 1, 2  # <sys/mman.h>
_PR_SET_TIMERSLACK = 29  # <sys/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


def claim(core: int | None) -> dict[str, str]:
    """Ask for all of it, for this thread and its process: {what: what was given}, where a refusal
    begins with `REFUSED` and says what to do."""
    asked: dict[str, Callable[[], str]] = {
        "scheduling": _fifo,
        "memory": _lock_memory,
        "timer": _no_timer_slack,
        "garbage collection": _no_collection,
    }
    if core is not None:
        asked["core"] = lambda: _pin(core)
    return {what: _or_refusal(ask) for what, ask in asked.items()}


def demand(given: dict[str, str]) -> None:
    """Raises ConfigError naming everything that was refused."""
    if refused := [f"{what} {got}" for what, got in given.items() if got.startswith(REFUSED)]:
        raise ConfigError(
            f"no real time: {'; '.join(refused)}; or run without control.require_rt (--require-rt)"
        )


def _or_refusal(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except OSError as error:
        return f"{REFUSED}{error.strerror}{_ADVICE.get(ask, '')}"


def _fifo() -> str:
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(0, policy, os.sched_param(FIFO_PRIORITY))
    return f"fifo {FIFO_PRIORITY}"


def _lock_memory() -> str:
    _checked(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE))
    return "locked"


def _no_timer_slack() -> str:
    # The default of 50 us delays every wake-up of an ordinary thread; FIFO does without it.
    _checked(_libc.prctl(_PR_SET_TIMERSLACK, 1, 0, 0, 0))
    return "no slack"


def _no_collection() -> str:
    gc.collect()
    gc.freeze()
    gc.disable()
    return "off"


def _pin(core: int) -> str:
    os.sched_setaffinity(0, {core})
    return str(core)


def _checked(result: int) -> None:
    if result != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


_ADVICE = {
    _fifo: " (grant rtprio 50 in /etc/security/limits.conf)",
    _lock_memory: " (grant memlock unlimited in /etc/security/limits.conf)",
}
