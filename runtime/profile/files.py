"""Reads and writes the folder of a profile: profile.json, report.html, trace.perfetto-trace."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from runtime.profile_model import SCHEMA_VERSION, Profile
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from v2a.config import describe_fault
from v2a.errors import ConfigError
from v2a.files import write_text

PROFILE_JSON: Final = "profile.json"
_FIX: Final = "give a profile.json or its folder; v2a profile --run makes one from a recording"


def read_profile(path: Path) -> Profile:
    """Read a profile.json, or the one in the folder `path`.

    Raises ConfigError for a missing file, another file, and another schema version.
    """
    path = path / PROFILE_JSON if path.is_dir() else path
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        version = content["schema_version"]
        if version != SCHEMA_VERSION:
            raise ConfigError(
                f"{path}: schema_version {version}, this v2a reads {SCHEMA_VERSION}; "
                "measure the profile again"
            )
        return Profile.model_validate(content)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; {_FIX}") from error
    except ValidationError as error:
        fault = describe_fault(error.errors(include_url=False)[0], Profile)
        raise ConfigError(f"{path}: not a profile: {fault}; {_FIX}") from error
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ConfigError(f"{path}: not a profile; {_FIX}") from error


def write_profile(profile: Profile, recording: Recording, folder: Path) -> None:
    """Write profile.json, report.html and the trace of `recording` into `folder`.

    Raises ConfigError if the folder cannot be written.
    """
    from runtime.convert.perfetto import write_trace  # here: only this needs perfetto's package
    from runtime.report import write_report

    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = to_json(profile.model_dump()) + "\n"
        write_text(folder / PROFILE_JSON, text)
        write_report(profile, recording, folder / "report.html")
        write_trace(recording, folder / "trace.perfetto-trace")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; name another folder with -o") from error


def new_folder(kind: str) -> Path:
    """Return the first of runs/KIND-1, runs/KIND-2, ... that does not exist yet."""
    n = 1
    while (folder := Path("runs") / f"{kind}-{n}").exists():
        n += 1
    return folder


def claim_folder(folder: Path) -> Path:
    """Check that the recorder can create `folder`, before anything is measured. Return `folder`.

    Raises ConfigError if it has content, or cannot be created.
    """
    try:
        without_empty(folder).mkdir(parents=True)
        folder.rmdir()
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't record there: {error.strerror}; name a new folder"
        ) from error
    return folder


def without_empty(folder: Path) -> Path:
    """Remove `folder` if it is empty, because the recorder must create it. Return `folder`."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return folder
