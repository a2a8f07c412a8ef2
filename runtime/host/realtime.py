"""Requests real-time settings from the system for the control process.

A separate process and SCHED_FIFO together keep a Python loop on time under any load; neither
suffices alone (docs/measurements/control.md). A garbage collection would stop the loop for 70 ms or
more.
"""

from __future__ import annotations

import ctypes
import gc
import os
from collections.abc import Callable
from pathlib import Path

from v2a.errors import ConfigError

FIFO_PRIORITY = 50
REFUSED = "refused: "

_MCL_CURRENT, _MCL_FUTURE = 1, 2  # <sys/mman.h>
_PR_SET_TIMERSLACK = 29  # <sys/prctl.h>
_libc = ctypes.CDLL(None, use_errno=True)


def claim(core: int | None) -> dict[str, str]:
    """Request every setting for this thread and its process.

    Returns setting -> what the system granted. A refusal begins with `REFUSED` and names the fix.
    """
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
    """Check the result of `claim`. Raises ConfigError that names every refused setting."""
    if refused := [f"{what} {got}" for what, got in given.items() if got.startswith(REFUSED)]:
        raise ConfigError(
            f"no real time: {'; '.join(refused)}; or run without control.require_rt (--require-rt)"
        )


def _or_refusal(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except OSError as error:
        advice = _ROOTS_ADVICE if os.geteuid() == 0 else _ADVICE
        return f"{REFUSED}{error.strerror}{advice.get(ask, '')}"


def _fifo() -> str:
    policy = os.SCHED_FIFO | os.SCHED_RESET_ON_FORK
    os.sched_setscheduler(0, policy, os.sched_param(FIFO_PRIORITY))
    return f"fifo {FIFO_PRIORITY}"


def _lock_memory() -> str:
    _checked(_libc.mlockall(_MCL_CURRENT | _MCL_FUTURE))
    return "locked"


def _no_timer_slack() -> str:
    # By default the kernel delays the wake-ups of an ordinary thread by up to 50 us.
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
# limits.conf does not limit root: a refusal comes from the container or the cgroup.
_ROOTS_ADVICE = {
    _fifo: " (this is root in a container or cgroup: start the container with --cap-add SYS_NICE "
    "--ulimit rtprio=50, or give the cgroup cpu.rt_runtime_us)",
    _lock_memory: " (this is root in a container: start it with --ulimit memlock=-1)",
}


def check_core(core: int | None) -> None:
    """Raise ConfigError if this machine has no such core, or does not let this process use it."""
    if core is None:
        return
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, {core})  # the affinity of a process lacks isolated cores
    except OSError:
        online = Path("/sys/devices/system/cpu/online").read_text(encoding="ascii").strip()
        text = f"this machine has the cores {online}; name one of them, or leave it out"
        raise ConfigError(f"control.core: {text} (got {core})") from None
    os.sched_setaffinity(0, before)
