"""One press under each load, with real processes; `benchmarks/press.py` plays and times more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.real_time, pytest.mark.alone]


@pytest.mark.parametrize("load", ["busy", "storm", "refused", "slow"])
def test_a_press_is_confirmed_under_load(load: str) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/press.py", "--rounds", "1", "--only", load, "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    for row in json.loads(done.stdout)["rows"]:
        print(f"{row['load']}, {row['connection']} connection: {row['max_ms']:.0f} ms")
        assert row["wrong"] == []
