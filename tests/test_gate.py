"""CI and the commit hooks run the targets of the Makefile, and nothing of their own."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import REPOSITORY

TARGETS = set(re.findall(r"^([a-z-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))


def load(name: str) -> Any:
    return yaml.safe_load((REPOSITORY / name).read_text())


def test_ci_runs_the_suite_and_the_robot_side_on_each_python() -> None:
    jobs = load(".github/workflows/ci.yml")["jobs"]
    commands = [step["run"] for job in jobs.values() for step in job["steps"] if "run" in step]
    assert commands == ["make test", "make test-pythons PYTHONS=${{ matrix.python }}"]
    assert jobs["robot"]["strategy"]["matrix"]["python"] == ["3.10", "3.11", "3.12"]
    assert {command.split()[1] for command in commands} <= TARGETS


def test_the_commit_hooks_are_targets_of_make_check() -> None:
    (repo,) = load(".pre-commit-config.yaml")["repos"]
    entries = [hook["entry"] for hook in repo["hooks"]]
    assert entries == ["make lint", "make types"]
    parts = re.search(
        r"^check: (.*?)(?: ##|$)", (REPOSITORY / "Makefile").read_text(), re.MULTILINE
    )
    assert parts is not None
    assert {entry.removeprefix("make ") for entry in entries} <= set(parts.group(1).split())
