"""One round of each way to die, on a virtual bus; `benchmarks/kills.py --rounds 100` plays more."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY

pytestmark = [pytest.mark.real_time, pytest.mark.alone]

FAULTS = ("policy_killed", "policy_hung", "system1_hung", "control_killed", "port_unplugged")


@pytest.mark.parametrize("fault", FAULTS)
def test_the_safe_state_is_reached_in_bounded_time(fault: str) -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/kills.py", "--rounds", "1", "--only", fault, "--json"],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    (row,) = json.loads(done.stdout)["faults"]
    print(f"{row['what']}: {row['max_s']:.3f} s, bound {row['bound_s']:.2f} s")
    assert row["wrong"] == []
    assert row["misses"] == 0, f"{row['max_s']:.3f} s, bound {row['bound_s']:.2f} s"
