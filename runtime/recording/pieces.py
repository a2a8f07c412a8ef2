"""The files of a recording: `run.mcap`, and in a long one `run.1.mcap`, `run.2.mcap`, ..."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

FILE: Final = "run.mcap"


def piece(folder: Path, number: int) -> Path:
    """Path of the file with this number, counted from 0."""
    return folder / (f"run.{number}.mcap" if number else FILE)


def pieces_of(path: Path) -> tuple[list[Path], list[str]]:
    """The files of the recording whose first file is `path`, and the names of missing ones.

    A file with another name stands alone.
    """
    if path.name != FILE:
        return [path], []
    numbers = sorted(_numbers(path.parent))
    gaps = [n for n, after in zip([-1, *numbers], numbers, strict=False) if after > n + 1]
    missing = [piece(path.parent, n + 1).name for n in gaps]
    return [piece(path.parent, n) for n in numbers] or [path], missing


def _numbers(folder: Path) -> Iterator[int]:
    if (folder / FILE).exists():
        yield 0
    for path in folder.glob("run.*.mcap"):
        number = path.name.removeprefix("run.").removesuffix(".mcap")
        if number.isdecimal() and number == str(int(number)):
            yield int(number)
