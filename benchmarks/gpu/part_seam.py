"""Part a: runs the tests of `tests/gpu` in another process."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from gpu.machine import Context

REPOSITORY = Path(__file__).parents[2]


def seam(context: Context, file: str = "test_cuda.py") -> dict[str, Any]:
    """Every test's outcome; `ok` where none failed. Without a GPU they are all skipped."""
    report = context.out / f"{context.name}.xml"
    command = [
        sys.executable, "-m", "pytest", "-q", "-rA", "-p", "no:cacheprovider",
        f"--junitxml={report}", f"tests/gpu/{file}",
    ]  # fmt: skip
    done = subprocess.run(
        command, cwd=REPOSITORY, capture_output=True, text=True, timeout=context.left_s(),
        env={**os.environ, "PYTHONPATH": _path()},
    )  # fmt: skip
    (context.out / f"{context.name}.log").write_text(done.stdout + done.stderr)
    found: dict[str, Any] = {"rc": done.returncode, "outcomes": {}}
    if report.is_file():
        for case in ET.parse(report).getroot().iter("testcase"):
            found["outcomes"][case.get("name")] = _outcome(case)
    counted = [outcome.split(":")[0] for outcome in found["outcomes"].values()]
    found |= {word: counted.count(word) for word in ("passed", "failed", "skipped")}
    # pytest answers 5 where nothing was collected.
    found["ok"] = done.returncode == 0 and bool(counted)
    if not found["ok"]:
        found["tail"] = (done.stdout + done.stderr)[-3000:]
    return found


def _path() -> str:
    return os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH", "")]))


def _outcome(case: ET.Element) -> str:
    for tag, word in (("failure", "failed"), ("error", "failed"), ("skipped", "skipped")):
        if (element := case.find(tag)) is not None:
            return f"{word}: {(element.get('message') or '')[:300]}"
    return "passed"
