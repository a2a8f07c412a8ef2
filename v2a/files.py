"""Files and folders, with errors that tell the fix."""

from __future__ import annotations

from pathlib import Path

from v2a.errors import ConfigError


def new_folder(folder: Path, to_do: str) -> None:
    """Make it, with what is above it. Raises ConfigError where it exists or can't be made:
    `to_do` names what was wanted there."""
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't {to_do} there: {error.strerror}; name a new folder"
        ) from error
