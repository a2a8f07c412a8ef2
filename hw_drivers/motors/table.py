"""Text for a person: columns, and lines that are rewritten in place on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import click


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """The header and the rows as lines, each column as wide as its widest cell."""
    cells = [header, *rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


class LiveLines:
    """Lines that take the place of those before them on a terminal, and follow them elsewhere."""

    def __init__(self, *, err: bool = False) -> None:
        self._err = err
        self._in_place = (sys.stderr if err else sys.stdout).isatty()
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        """Show `lines` instead of the last ones."""
        if self._in_place:
            up = f"\x1b[{self._shown}A" if self._shown else ""
            text = up + "".join(f"\x1b[K{line}\n" for line in lines)
            click.echo(text, nl=False, err=self._err)
            self._shown = len(lines)
        else:
            click.echo("\n".join(lines), err=self._err)
