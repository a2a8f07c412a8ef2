"""Names this program in advice, so that the line works when the user pastes it."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path


def own_command() -> str:
    """The words that start this v2a in the user's shell.

    `v2a` if the shell finds this installation under that name. Otherwise the path of its script,
    relative below the current folder, or `PYTHON -m v2a` where no script is installed.
    """
    script = Path(sys.executable).with_name("v2a")
    if not script.exists():
        return f"{shlex.quote(_short(Path(sys.executable)))} -m v2a"
    found = shutil.which("v2a")
    if found and os.path.samefile(found, script):
        return "v2a"
    return shlex.quote(_short(script))


def _short(path: Path) -> str:
    try:
        return str(path.relative_to(Path.cwd()))
    except (ValueError, OSError):  # elsewhere, or the current folder is gone
        return str(path)
