"""The suite runs where people start it: here, in the background of a shell that closes."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

SIGNALS = (signal.SIGINT, signal.SIGHUP)


@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_that_a_test_starts_dies_of_a_signal(number: signal.Signals) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "print(1, flush=True); import time; time.sleep(60)"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert process.stdout is not None
    with process, process.stdout:
        process.stdout.readline()
        process.send_signal(number)
        assert process.wait(30) == -number


def test_the_signal_tests_pass_under_nohup_in_the_background() -> None:
    """As `nohup make test &` has it: SIGHUP and SIGINT ignored, no terminal, no stdin."""
    tests = f"{__file__}::test_a_program_that_a_test_starts_dies_of_a_signal"
    simulator = REPOSITORY / "tests/hw_drivers/virtual/test_simulate.py"
    command = f"'{sys.executable}' -m pytest -q -p no:cacheprovider"
    done = subprocess.run(
        [
            "sh",
            "-c",
            f"trap '' INT; exec nohup {command} '{tests}' '{simulator}' -k 'dies or ctrl'",
        ],
        cwd="/",
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        start_new_session=True,
    )
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout
