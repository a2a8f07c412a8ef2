"""Output that a run can do without: it never raises, and never waits long."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from v2a.output import ExpendableOutput, expendable, lost, say


def test_what_arrives_arrives_whole(tmp_path: Path) -> None:
    text = "é\n" * 50_000
    with (tmp_path / "log").open("w", encoding="utf-8") as file:
        out = expendable(file, 1.0)
        print(text, end="", file=out)
        assert lost(out) is None
    assert (tmp_path / "log").read_text(encoding="utf-8") == text


def test_a_full_disk_and_a_reader_that_is_gone_lose_it() -> None:
    with Path("/dev/full").open("w") as full:
        out = expendable(full, 1.0)
        print("x", file=out)
        assert lost(out) == "No space left on device"
    ours, theirs = os.pipe()
    os.close(ours)
    with suppress(BrokenPipeError), os.fdopen(theirs, "w") as pipe:
        out = expendable(pipe, 1.0)
        print("x", file=out)
        assert lost(out) == "Broken pipe"


def test_a_reader_that_sleeps_loses_only_what_does_not_fit_and_gets_later_lines() -> None:
    ours, theirs = os.pipe()
    with os.fdopen(theirs, "w") as pipe:
        out = ExpendableOutput(pipe, 0.01)
        out.write("x" * 1_000_000)
        assert lost(out) == "nobody reads it"  # type: ignore[arg-type]
        os.set_blocking(ours, False)
        with suppress(BlockingIOError):
            while os.read(ours, 65536):
                pass
        out.write("again\n")
        assert os.read(ours, 100) == b"again\n"
    os.close(ours)


def test_a_character_that_the_encoding_lacks_is_written_out(tmp_path: Path) -> None:
    with (tmp_path / "log").open("w", encoding="ascii") as file:
        print("µ", file=expendable(file, 1.0))
    assert (tmp_path / "log").read_text() == "\\xb5\n"


def test_no_stream_and_one_without_a_descriptor(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    say("hello")
    assert capsys.readouterr().err == "hello\n"
    print("x", file=expendable(None, 1.0))
    monkeypatch.setattr(sys, "stderr", None)
    say("x")


@pytest.mark.parametrize("closed", ["", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_descriptors_number_goes_to_no_file(closed: str, tmp_path: Path) -> None:
    script = (
        "import os, sys; from v2a.output import *; open_missing_streams(); expend_stderr();"
        f"f = open('{tmp_path}/f', 'w'); print('lost', file=sys.stderr);"
        "os.write(2, b'by a library'); f.write(str(f.fileno() > 2)); f.close()"
    )
    subprocess.run(
        ["sh", "-c", f'exec {sys.executable} -c "$1" {closed}', "sh", script],
        cwd=REPOSITORY,
        check=True,
        stderr=subprocess.DEVNULL,
    )
    assert (tmp_path / "f").read_text() == "True"


def test_an_error_keeps_its_exit_code_when_nobody_can_read_it(tmp_path: Path) -> None:
    missing = tmp_path / "missing.yaml"
    run = f"{sys.executable} -m v2a run {missing} --bundle x"
    for where in ("2>/dev/full", "2>&-", ">&- 2>&-"):
        assert subprocess.run(["sh", "-c", f"{run} {where}"], cwd=REPOSITORY).returncode == 2
