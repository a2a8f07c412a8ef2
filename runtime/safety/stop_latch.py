"""Keeps an emergency stop in force until a person releases it.

A stop ends the run, and a supervisor would start the next one at once. So the control process
writes a small file after its torque-off, and no run arms that robot while the file is there. Only
`v2a robot clear-stop` removes it.

The file's name comes from `robot.name`. That is how a user tells one arm from another; a port
changes with the plug, and the path of robot.yaml changes with a copy.
"""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import quote

from pydantic import Field

from v2a.errors import ConfigError, SafetyFault
from v2a.measured import Measured

FOLDER_KEY = "V2A_STATE_DIR"
NAME_MAX = 200  # file systems take names of 255 bytes
_FIX = f"set {FOLDER_KEY} to a folder where you may write, and that outlives the run"


class StopLatch(Measured):
    """The contents of the file."""

    t_utc: str = Field(description="when torque had gone off, UTC in ISO 8601")
    robot: str = Field(description="`robot.name` of robot.yaml")
    source: str = Field(description="the input that asked for the stop")
    run: str = Field(description="process of the run, and the folder where it was started")


def state_dir() -> Path:
    """Return the folder of files that outlive a run. It may not exist yet.

    Raises ConfigError if the environment names none and the user has no home.
    """
    if own := os.environ.get(FOLDER_KEY):
        if not own.startswith("/"):  # it would be another folder for each folder of a run
            raise ConfigError(f"{FOLDER_KEY}={own}: name an absolute path")
        return Path(own)
    shared = os.environ.get("XDG_STATE_HOME", "")
    if shared.startswith("/"):  # the XDG specification has relative ones ignored
        return Path(shared) / "v2a"
    return _home() / ".local" / "state" / "v2a"


def _home() -> Path:
    if home := os.environ.get("HOME"):
        return Path(home)
    try:
        return Path(pwd.getpwuid(os.getuid()).pw_dir)
    except KeyError:
        raise ConfigError(
            f"user {os.getuid()} has no home, so a stop cannot be kept; set {FOLDER_KEY} to a "
            "folder that outlives the run"
        ) from None


def latch_path(robot: str) -> Path:
    """Return the file that keeps a stop of the robot with this name, and of no other robot."""
    name = quote(robot, safe="")
    if len(name) > NAME_MAX:
        name = hashlib.sha256(robot.encode(errors="surrogatepass")).hexdigest()
    return state_dir() / "stops" / f"{name}.json"


def latch(robot: str, source: str, run: str) -> Path:
    """Keep the stop, on the disk when this returns. Raises OSError or ConfigError if it cannot."""
    path = latch_path(robot)
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    kept = StopLatch(t_utc=now, robot=robot, source=source, run=run)
    beside = path.with_suffix(f".{os.getpid()}")
    with beside.open("w", encoding="utf-8") as file:
        file.write(json.dumps(kept.model_dump(), indent=1) + "\n")
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def latched(robot: str) -> str | None:
    """Describe the stop in force: when and by what. None if there is none.

    A file that cannot be read is a stop too. Raises ConfigError like `state_dir`.
    """
    path = latch_path(robot)
    try:
        kept = StopLatch.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "its contents are damaged"
        return f"a stop that cannot be read ({path}: {reason})"
    return f"emergency stop by {kept.source} at {kept.t_utc}"


def refuse_if_latched(robot: str, robot_yaml: str = "ROBOT.yaml") -> None:
    """Raise SafetyFault if a stop of this robot is in force. `robot_yaml` is named in the fix."""
    if stop := latched(robot):
        raise SafetyFault(
            f"can't arm {robot}: {stop} is still in force; make the robot safe, then release it: "
            f"v2a robot clear-stop {robot_yaml}"
        )


def why_not_kept() -> str | None:
    """Say why a stop could not be kept in force, with the fix; None if it could."""
    try:
        folder = state_dir() / "stops"
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(bytes(4096))  # longer than any stop
            file.flush()
    except (OSError, ConfigError) as error:
        return f"an emergency stop would not stay in force for the next run: {error}; {_FIX}"
    return None


def keep(robot: str, source: str, run: str) -> str:
    """Keep the stop, and say so; or say why it could not be kept, with the fix."""
    try:
        path = latch(robot, source, run)
    except (OSError, ConfigError) as error:
        return f"the stop could not be kept for the next run: {error}; {_FIX}"
    return (
        f"the stop stays in force for the next run ({path}); release it: "
        "v2a robot clear-stop ROBOT.yaml"
    )


def release(robot: str) -> None:
    """End the stop in force. Does nothing if there is none. Raises OSError if it stays."""
    latch_path(robot).unlink(missing_ok=True)
