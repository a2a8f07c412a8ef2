"""The signals that end a program that holds a robot."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from v2a.signals import CRASHES, ENDS, JOBS, heard, one_signal_ends_it


def fate(number: int) -> str:
    """What the kernel does to a program that has no handler: ends, stops or goes on."""
    script = (
        f"import os, signal; signal.signal({number}, signal.SIG_DFL); "
        f"os.kill(os.getpid(), {number})"
    )
    # In a group of its own: the kernel stops no process of an orphaned group, such as that of a
    # test run under nohup.
    child = subprocess.Popen(
        [sys.executable, "-c", script], stderr=subprocess.DEVNULL, preexec_fn=os.setpgrp
    )
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    child.returncode = 0
    if os.WIFSTOPPED(status):
        os.kill(child.pid, signal.SIGKILL)
        os.waitpid(child.pid, 0)
        return "stops"
    return "ends" if os.WIFSIGNALED(status) else "goes on"


def test_no_signal_of_the_kernel_is_left_out() -> None:
    """The kernel is the peer: whatever it ends or stops a program for is in a table."""
    python_ignores = {signal.SIGPIPE, signal.SIGXFSZ}
    uncatchable = {signal.SIGKILL, signal.SIGSTOP}
    known = [number for number in signal.valid_signals() if isinstance(number, signal.Signals)]
    for number in set(known) - python_ignores - uncatchable:
        listed = number in ENDS | JOBS | CRASHES
        assert listed == (fate(number) != "goes on"), number
    assert set(range(signal.SIGRTMIN, signal.SIGRTMAX + 1)) <= ENDS


@pytest.mark.parametrize("number", sorted(ENDS))
def test_each_ends_the_program_in_order_and_once(number: int) -> None:
    before = signal.getsignal(number)

    def run() -> None:
        with one_signal_ends_it() as ending:
            try:
                os.kill(os.getpid(), number)
            finally:
                os.kill(os.getpid(), number)  # ignored: it could interrupt a torque-off
            raise AssertionError(f"it goes on after {ending}")

    try:
        with pytest.raises(SystemExit) as caught:
            run()
        assert caught.value.code == 128 + number
    finally:
        for each in ENDS:
            if signal.getsignal(each) is signal.SIG_IGN:
                signal.signal(each, signal.SIG_DFL)
        signal.signal(number, before)
        signal.signal(signal.SIGINT, signal.default_int_handler)


def test_jobs_in_the_background_do_not_stand_still() -> None:
    with one_signal_ends_it():
        for number in JOBS:
            os.kill(os.getpid(), number)
    assert all(signal.getsignal(number) is signal.SIG_DFL for number in JOBS)


@pytest.mark.parametrize(("ignored", "left_out"), [("HUP", {1}), ("INT QUIT TERM", set())])
def test_only_nohup_is_honoured(ignored: str, left_out: set[int]) -> None:
    script = "from v2a.signals import ENDS, heard; print(*(ENDS - heard()))"
    said = subprocess.run(
        ["sh", "-c", f"trap '' {ignored}; exec {sys.executable} -c '{script}'"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    assert {int(number) for number in said.stdout.split()} == left_out
    assert signal.SIGINT in heard()
