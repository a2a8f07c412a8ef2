"""`benchmarks/rate_partition.py` on tiny sizes: that it measures the same chunk twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "rate_partition.py"
ARMS = ("naive", "split", "critical")


def test_both_arms_give_one_chunk_and_ours_does_less() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--quick", "--rounds", "2", "--json"],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["max_abs_error"] <= 1e-4
    assert found["naive_flops"] > found["split_flops"] > found["critical_flops"] > 0
    assert found["naive_bytes"] > found["split_bytes"] > found["critical_bytes"] > 0
    assert all(found[f"{arm}_ms"] > 0 for arm in ARMS)
    assert {"speedup", "critical_speedup", "floor_95"} <= found.keys()
    # What its size must come to: the K/V of each visual block, in each of five steps.
    hidden, blocks, tokens = 32, 2, 2 * 3 * 6 + 390 + 784
    assert found["naive_flops"] > 5 * blocks * 2 * tokens * hidden * 2 * hidden
