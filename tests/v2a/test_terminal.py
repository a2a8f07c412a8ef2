"""Bars and lines as a terminal has them, and as a log does."""

from __future__ import annotations

import os
import pty
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY
from v2a.terminal import Bar, LiveLines

BAR = """
from v2a.terminal import Bar
with Bar("building", 3) as bar:
    for name in ("one", "two", "three"):
        bar.begin(name)
        bar.done(f"{name} is built", err=True)
"""
LINES = """
from v2a.terminal import LiveLines
lines = LiveLines(err=True)
lines.show(["a 1", "b 1"])
lines.show(["a 2", "b 2"])
lines.say("warning: hot")
lines.show(["a 3"])
"""


def on_a_terminal(script: str) -> str:
    """What the script writes to stderr when that is a terminal."""
    master, slave = pty.openpty()
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "TERM": "xterm"}
    child = subprocess.Popen([sys.executable, "-c", script], stderr=slave, env=environment)
    os.close(slave)
    written = b""
    try:
        while data := os.read(master, 4096):
            written += data
    except OSError:
        pass  # how a pseudo terminal says that the other side has gone
    os.close(master)
    assert child.wait() == 0, written
    return written.decode()


def screen(written: str) -> list[str]:
    """The lines that are left on a screen: a terminal of the few codes that we use."""
    lines, row, column = [""], 0, 0
    for part in written.replace("\x1b", "\0\x1b").split("\0"):
        code, rest = "", part
        if part.startswith("\x1b["):
            end = next(k for k, c in enumerate(part[2:], 2) if c.isalpha())
            code, rest = part[2 : end + 1], part[end + 1 :]
        if code.endswith("A"):
            row -= int(code[:-1])
        elif code == "K":
            lines[row] = lines[row][:column]
        elif code == "J":
            lines[row:] = [lines[row][:column]]
        for character in rest:
            if character == "\r":
                column = 0
            elif character == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            else:
                lines[row] = (
                    lines[row][:column].ljust(column) + character + lines[row][column + 1 :]
                )
                column += 1
    return [line.rstrip() for line in lines if line.strip()]


def test_a_bar_names_what_is_worked_at_and_its_lines_stay_above() -> None:
    written = on_a_terminal(BAR)
    assert "0%  one" in written
    assert "66%  " in written
    left = screen(written)
    assert "100%" in written
    assert left == ["one is built", "two is built", "three is built"]  # and no bar any more


def test_in_a_log_there_are_the_lines_alone(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar("building", 2) as bar:
        bar.begin("one")
        bar.done("one is built")
        bar.done()
    found = capsys.readouterr()
    assert (found.out, found.err) == ("one is built\n", "")


def test_lines_take_the_place_of_those_before_and_a_warning_stays() -> None:
    assert screen(on_a_terminal(LINES)) == ["warning: hot", "a 3"]


def test_in_a_log_lines_follow_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    lines = LiveLines(err=True)
    lines.show(["a 1"])
    lines.say("warning: hot")
    lines.show(["a 2"])
    assert capsys.readouterr().err == "a 1\nwarning: hot\na 2\n"
