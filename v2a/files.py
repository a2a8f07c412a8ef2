"""Creates folders, with errors that tell the fix."""

from __future__ import annotations

from pathlib import Path

from v2a.errors import ConfigError


def new_folder(folder: Path, to_do: str) -> None:
    """Create `folder` and its parents. `to_do` is the verb for the message, such as "export".

    Raises ConfigError if the folder exists or cannot be created.
    """
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't {to_do} there: {error.strerror}; name a new folder"
        ) from error
