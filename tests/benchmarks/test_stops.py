"""`benchmarks/stops.py`: a stop by every source, and a stop in every state, once each."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

pytest.importorskip("onnxruntime", reason="a run loads its policy")

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.real_time, pytest.mark.timeout(300)]

# `make stops` plays every pair, many times.
PAIRS = {
    "socket": "arming",
    "gpio": "armed",
    "SIGUSR1": "hold",
    "key (SIGINT)": "safe pose",
    "page": "policy dead",
    "SIGTERM": "recorder dead",
    "SIGHUP": "viewers storming",
    "SIGQUIT": "bus dead",
}


@pytest.mark.parametrize(("source", "state"), PAIRS.items())
def test_the_stop_lets_go_and_says_the_truth(source: str, state: str) -> None:
    script = REPOSITORY / "benchmarks" / "stops.py"
    done = subprocess.run(
        [sys.executable, str(script), "--rounds", "1", "--source", source, "--state", state],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
