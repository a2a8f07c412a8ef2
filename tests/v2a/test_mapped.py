"""A mapped file that is truncated ends a command in one line; everything else passes through."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY


def started(script: str, *arguments: object) -> subprocess.Popen[str]:
    """A Python that runs `script` in the child that `outlive_truncation` makes."""
    code = f"import os, sys, signal; from v2a.mapped import *; outlive_truncation()\n{script}"
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=REPOSITORY, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "mapped"
    file.write_bytes(bytes(8192))
    script = (
        "import mmap\n"
        "with open(sys.argv[1], 'r+b') as file:\n"
        "    content = mmap.mmap(file.fileno(), 0)\n"
        "    os.truncate(file.name, 0)\n"
        "    content[4096]"
    )
    process = started(script, file)
    out, err = process.communicate()
    assert (process.returncode, out) == (2, "")
    (line,) = err.splitlines()
    assert line.startswith("error: a checkpoint was truncated while v2a read it; ")


@pytest.mark.parametrize("code", [0, 2, 9])
def test_output_and_exit_code_pass_through(code: int) -> None:
    process = started(f"print('out'); print('err', file=sys.stderr); sys.exit({code})")
    assert process.communicate() == ("out\n", "err\n")
    assert process.returncode == code


def test_a_child_that_was_killed_reads_so() -> None:
    process = started("os.kill(os.getpid(), signal.SIGKILL)")
    process.communicate()
    assert process.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_reaches_the_child(number: signal.Signals) -> None:
    script = (
        f"signal.pthread_sigmask(signal.SIG_BLOCK, [{number:d}])\n"
        "print('ready', flush=True)\n"
        f"sys.exit(signal.sigwait([{number:d}]))"
    )
    process = started(script)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    process.send_signal(number)
    process.communicate()
    assert process.returncode == number


def test_the_child_dies_with_its_parent() -> None:
    process = started("print(os.getpid(), flush=True); signal.pause()")
    assert process.stdout is not None
    child = int(process.stdout.readline())
    process.kill()
    process.communicate()  # returns once the child, which holds the pipes, has ended, too
    assert not Path(f"/proc/{child}/exe").exists()
