"""Commands run the same in a folder whose files are named like the modules that they import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from v2a.cli import COMMANDS

PACKAGES = ("demo", "deploy", "export", "hw_drivers", "runtime", "v2a", "yaml", "pydantic", "numpy")
FILES = ("click", "json", "mcap", "sitecustomize", "struct", "socket", "usercustomize")
CONSOLE = Path(sys.executable).parent / "v2a"


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A folder with such files. Each one leaves a file `ran` behind, and fails."""
    text = f"open({str(tmp_path / 'ran')!r}, 'a').write(__name__ + chr(10))\nraise SystemExit(99)\n"
    for name in PACKAGES:
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(text)
    for name in FILES:
        (tmp_path / f"{name}.py").write_text(text)
    return tmp_path


def run_in(folder: Path, *command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.skipif(not CONSOLE.is_file(), reason="the console script is not installed here")
@pytest.mark.parametrize("name", COMMANDS)
def test_the_console_script_imports_nothing_from_the_current_folder(
    hostile: Path, name: str
) -> None:
    if name == "demo" and sys.version_info < (3, 11):
        pytest.skip("mujoco's import starts a Python of its own, and 3.10 has no safe path")
    done = run_in(hostile, str(CONSOLE), name, "--help")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"Usage: v2a {name}" in done.stdout
    assert not (hostile / "ran").exists()


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no safe path")
def test_the_module_with_a_safe_path_imports_nothing_from_the_current_folder(
    hostile: Path,
) -> None:
    done = run_in(hostile, sys.executable, "-P", "-m", "v2a", "run", "--help")
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists()


def test_the_module_imports_the_command_and_its_packages_from_this_installation(
    hostile: Path,
) -> None:
    """Only Python's own start, and a folder `v2a`, come before `v2a.__main__`."""
    for part in (hostile / "v2a").iterdir():
        part.unlink()
    (hostile / "v2a").rmdir()
    done = run_in(hostile, sys.executable, "-m", "v2a", "run", "--help")
    assert done.returncode == 0, done.stderr
    assert not (hostile / "ran").exists()
