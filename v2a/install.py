"""`install_hint`: the command that installs an extra of v2a for the interpreter that runs now."""

from __future__ import annotations

import json
import shlex
import sys
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit


def install_hint(extra: str) -> str:
    """Return "run: PYTHON -m pip install ..." for `extra`, a key of the project's extras.

    An editable install stays editable, because pip would replace it by a copy.
    """
    editable, where = _source()
    wanted = shlex.quote(f"{where}[{extra}]")
    return f"run: {shlex.quote(sys.executable)} -m pip install {'-e ' * editable}{wanted}"


def _source() -> tuple[bool, str]:
    """Whether the install is editable, and what to install: its folder or file, else its name."""
    checkout = Path(__file__).parents[1]
    if (checkout / "pyproject.toml").is_file():
        return True, str(checkout)
    try:  # what pip noted at the install (PEP 610)
        noted = json.loads(metadata.distribution("v2a").read_text("direct_url.json") or "{}")
        url = urlsplit(noted["url"])
    except (metadata.PackageNotFoundError, ValueError, KeyError, TypeError):
        return False, "v2a"
    return False, unquote(url.path) if url.scheme == "file" else "v2a"
