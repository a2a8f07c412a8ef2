"""Terminal output: columns, lines that are rewritten in place, progress bars."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Final

import click

WIDTH: Final = 80  # of a terminal that nobody made wider
_GAP: Final = 2
_REST_OF_SCREEN: Final = "\x1b[J"
_REST_OF_LINE: Final = "\x1b[K"


def columns(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Format the header and the rows as lines. Each column is as wide as its widest cell.

    A table wider than `WIDTH` becomes several below each other, which repeat the first column.
    """
    cells = [header, *rows]
    widths = [max(len(row[k]) for row in cells) for k in range(len(header))]
    lines: list[str] = []
    for block in _blocks(widths):
        lines += [""] if lines else []
        lines += ["  ".join(row[k].ljust(widths[k]) for k in block).rstrip() for row in cells]
    return lines


def _blocks(widths: Sequence[int]) -> Iterator[list[int]]:
    """Yield the columns of each table. A column that is too wide by itself stays whole."""
    block, used = [0], widths[0]
    for k in range(1, len(widths)):
        if len(block) > 1 and used + _GAP + widths[k] > WIDTH:
            yield block
            block, used = [0], widths[0]
        block.append(k)
        used += _GAP + widths[k]
    yield block


def wide_enough(names: Iterable[str], least: int) -> int:
    """Return the width of a table's first column: at least `least`, and one above each name."""
    return max([least, *(len(name) + 1 for name in names)])


class LiveLines:
    """Lines that replace the previous ones on a terminal. Elsewhere they are appended."""

    def __init__(self, *, err: bool = False) -> None:
        self.in_place = (sys.stderr if err else sys.stdout).isatty()
        self._err = err
        self._shown = 0

    def show(self, lines: Sequence[str]) -> None:
        """Replace the shown lines by `lines`."""
        if self.in_place:
            text = self._up() + "".join(f"{_REST_OF_LINE}{line}\n" for line in lines)
            click.echo(text + _REST_OF_SCREEN, nl=False, err=self._err)
            self._shown = len(lines)
        else:
            click.echo("\n".join(lines), err=self._err)

    def say(self, text: str) -> None:
        """Print a text above the lines, where it stays."""
        click.echo((self._up() + _REST_OF_SCREEN if self.in_place else "") + text, err=self._err)
        self._shown = 0

    def _up(self) -> str:
        return f"\x1b[{self._shown}A" if self._shown else ""


class Bar:
    """A progress bar on stderr, hidden if stderr is no terminal.

    The lines given to `done` are printed in both cases.
    """

    def __init__(self, label: str, total: int) -> None:
        self.in_place = sys.stderr.isatty()
        self._bar = click.progressbar(
            length=total,
            label=label,
            item_show_func=lambda item: item,
            update_min_steps=0,  # a new item is shown before its first step
            file=sys.stderr,
            hidden=not self.in_place,
        )

    def begin(self, item: str) -> None:
        """Show the name of the item in work."""
        self._bar.update(0, item)

    def done(self, line: str | None = None, *, err: bool = False) -> None:
        """Advance one step. A `line` is printed above the bar and stays."""
        if line is not None:
            if self.in_place:
                click.echo("\r" + _REST_OF_LINE, nl=False, err=True)
            click.echo(line, err=err)
        self._bar.update(1)

    def advance(self, steps: int) -> None:
        """Advance by `steps`."""
        self._bar.update(steps)

    def __enter__(self) -> Bar:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)
        if self.in_place:  # click has ended the bar's line; take the bar away
            click.echo(f"\x1b[1A\r{_REST_OF_SCREEN}", nl=False, err=True)
