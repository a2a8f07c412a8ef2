"""Runs a command that maps files into memory so that their truncation ends it in words.

The kernel kills a process that reads a mapped file beyond its end (SIGBUS), and Python cannot catch
that. Reading instead of mapping would need memory for a whole checkpoint.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from typing import Final

import click

from v2a.errors import ConfigError

MAPPING: Final = ("export", "check-golden", "plan")
"""The commands that map checkpoints."""

_PASSED_ON: Final = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP)
_WAITED_FOR: Final = {*_PASSED_ON, signal.SIGCHLD}
_FROM_A_PROCESS: Final = 0  # siginfo's si_code is at most this; a terminal signals the child, too
_PR_SET_PDEATHSIG: Final = 1  # <linux/prctl.h>


def outlive_truncation() -> None:
    """Return in a child process, which goes on. This process waits for it and ends as it does.

    Call it before any thread starts. Signals that other programs send to this process reach the
    child. If the child was killed by SIGBUS, this process prints one line and exits like a
    ConfigError.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # if it is ignored, nobody can wait for a child
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _WAITED_FOR)
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    killed_by, exit_code = _wait_for(child)
    signal.pthread_sigmask(signal.SIG_SETMASK, before)
    if killed_by == signal.SIGBUS:
        click.echo(
            "error: a checkpoint was truncated while v2a read it; try again when nobody writes to "
            "it, or from a copy",
            err=True,
        )
        exit_code = ConfigError.exit_code
    elif killed_by:
        if killed_by != signal.SIGKILL:
            signal.signal(killed_by, signal.SIG_DFL)
        os.kill(os.getpid(), killed_by)
    os._exit(exit_code)


def _wait_for(child: int) -> tuple[int, int]:
    """Pass signals on until `child` ends. Return the signal that killed it, or 0; its exit code."""
    while True:
        if (ended := os.waitpid(child, os.WNOHANG))[0]:
            killed = os.WIFSIGNALED(ended[1])
            return (os.WTERMSIG(ended[1]), 0) if killed else (0, os.WEXITSTATUS(ended[1]))
        news = signal.sigwaitinfo(_WAITED_FOR)
        if news.si_signo in _PASSED_ON and news.si_code <= _FROM_A_PROCESS:
            os.kill(child, news.si_signo)
