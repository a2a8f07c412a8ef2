"""Writes files and folders whole or not at all, with errors that tell the fix.

Everything is written beside its place and then renamed. So a full disk, Ctrl-C or a power cut
leaves the old content or nothing, and never a half that looks like a result or blocks a retry.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from v2a.errors import ConfigError


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a path beside the file `path`, and at the end move the file there to `path`.

    After an error `path` is as before. Raises OSError if the disk refuses.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        yield beside
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a UTF-8 file, whole or not at all. Raises OSError if the disk refuses."""
    with replacing(path) as beside:
        beside.write_text(text, encoding="utf-8")


@contextmanager
def new_folder(folder: Path, to_do: str) -> Iterator[Path]:
    """Yield an empty folder beside `folder`, and at the end rename it to `folder`.

    `to_do` is the verb for the message, such as "export". Raises ConfigError if `folder` exists, or
    if the disk refuses anything that is written in the `with` block.
    """
    if os.path.lexists(folder):
        raise ConfigError(f"{folder}: can't {to_do} there: File exists; name a new folder")
    with _beside(folder, to_do) as beside:
        yield beside
        beside.rename(folder)


@contextmanager
def changed_folder(folder: Path, to_do: str) -> Iterator[Path]:
    """Yield a copy of `folder`, which takes its place at the end.

    The copy shares its files with `folder`: replace a file, do not write into it. Raises
    ConfigError as `new_folder` does.
    """
    with _beside(folder, to_do) as beside:
        shutil.copytree(folder, beside, copy_function=_linked, dirs_exist_ok=True)
        yield beside
        before = beside.with_suffix(".before")
        folder.rename(before)
        beside.rename(folder)
        shutil.rmtree(before, ignore_errors=True)


@contextmanager
def _beside(folder: Path, to_do: str) -> Iterator[Path]:
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        beside = Path(tempfile.mkdtemp(".part", f".{folder.name}.", folder.parent))
        beside.chmod(0o777 & ~_umask())
        try:
            yield beside
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    except OSError as error:
        raise ConfigError(
            f"{folder}: can't {to_do} there: {error.strerror or error}; name another folder"
        ) from error


def _linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy2(source, target)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
