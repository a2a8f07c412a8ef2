"""`benchmarks/gpu_suite.py --rehearse`: every part runs on the CPU, at toy size."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import REPOSITORY

SCRIPT = REPOSITORY / "benchmarks" / "gpu_suite.py"


def suite(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), "--rehearse", *options],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


@pytest.mark.timeout(600)  # 50 s on two idle cores; each part starts PyTorch anew
def test_a_rehearsal_runs_every_part_and_keeps_what_is_done(tmp_path: Path) -> None:
    done = suite("--json", "--out", str(tmp_path))
    assert done.returncode == 0, done.stderr
    parts: dict[str, Any] = json.loads(done.stdout)["parts"]
    assert all(part["ok"] and part["rehearsal"] and part["seconds"] > 0 for part in parts.values())
    found = {name: part["found"] for name, part in parts.items()}
    assert found["chunk"]["ours_against_release"]["max_abs"] <= 1e-5
    assert found["condition"]["steps_against_policy"]["max_abs"] <= 1e-5
    contention = found["contention"]
    assert contention["failed"] == found["green"]["failed"] == {}
    assert all(contention["facts"][f"sliced_{n}ms"]["max_abs_error"] <= 1e-6 for n in (2, 5))
    assert contention["arms"]["sliced_2ms"]["gate"]["overruled"] == 0

    # Taken up again: what is done is kept; a part that fails is named, and the others are shown.
    (tmp_path / "seam.json").unlink()
    (tmp_path / "seam.json").mkdir()  # it can't write there
    again = suite("--out", str(tmp_path))
    assert again.returncode == 1
    assert again.stderr.count("kept from before") == len(parts) - 1
    assert re.search(r"^seam +FAILED .* exit status 1$", again.stdout, re.MULTILINE)
    assert "sliced_2ms_no_gate" in again.stdout
