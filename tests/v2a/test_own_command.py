"""The command that advice names is one that works for this user."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from v2a.own_command import own_command


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An environment's folder of programs, with `python` and `v2a`."""
    programs = tmp_path / "my env" / "bin"
    programs.mkdir(parents=True)
    for name in ("python", "v2a"):
        (programs / name).write_text("#!/bin/sh\n")
        (programs / name).chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(programs / "python"))
    monkeypatch.setenv("PATH", "/usr/bin")
    return programs


def test_the_short_name_where_the_shell_finds_this_one(
    installed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(installed))
    assert own_command() == "v2a"


def test_the_path_where_the_shell_finds_none_or_another(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir("/")
    assert own_command().strip("'") == str(installed / "v2a").lstrip("/")
    monkeypatch.chdir(tmp_path)
    assert own_command() == "'my env/bin/v2a'"
    other = tmp_path / "other"
    other.mkdir()
    (other / "v2a").write_text("#!/bin/sh\n")
    (other / "v2a").chmod(0o755)
    monkeypatch.setenv("PATH", str(other))
    assert own_command() == "'my env/bin/v2a'"


def test_the_interpreter_where_no_script_is_installed(
    installed: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (installed / "v2a").unlink()
    monkeypatch.chdir(tmp_path)
    assert own_command() == "'my env/bin/python' -m v2a"


def test_it_runs_from_here() -> None:
    shown = subprocess.run(
        f"{own_command()} --version", shell=True, capture_output=True, text=True, check=True
    )
    assert shown.stdout.startswith("v2a")
