"""CI and the commit hooks run the targets of the Makefile, and nothing of their own."""

from __future__ import annotations

import re
from typing import Any

import yaml

from tests.conftest import REPOSITORY
from v2a import __version__

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


def test_the_newest_section_of_the_changelog_is_the_version() -> None:
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    first = re.search(r"^## (\S+) \((unreleased|\d{4}-\d\d-\d\d)\)$", text, re.MULTILINE)
    assert first is not None
    assert first.group(1) == __version__
