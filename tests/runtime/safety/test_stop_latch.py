"""An emergency stop stays in force for later runs, until a person releases it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.safety.stop_latch import (
    keep,
    latch,
    latch_path,
    latched,
    refuse_if_latched,
    release,
    state_dir,
    why_not_kept,
)
from v2a.errors import ConfigError, SafetyFault


def test_it_refuses_until_it_is_released() -> None:
    refuse_if_latched("arm")
    path = latch("arm", "GPIO line 4", "process 7 in /home")
    assert [file.name for file in path.parent.iterdir()] == ["arm.json"]  # nothing half-written
    with pytest.raises(SafetyFault, match=r"arm: emergency stop by GPIO line 4 at 20.+ is still"):
        refuse_if_latched("arm")
    refuse_if_latched("other")
    latch("arm", "the page", "")  # a second stop replaces the first
    assert "the page" in (latched("arm") or "")
    release("arm")
    release("arm")
    refuse_if_latched("arm")


@pytest.mark.parametrize("contents", [b"", b"{}", b"\xff\x00", b'{"t_utc": 1}', b"[" * 100_000])
def test_a_damaged_file_is_a_stop(contents: bytes) -> None:
    path = latch("arm", "x", "")
    path.write_bytes(contents)
    with pytest.raises(SafetyFault, match=r"a stop that cannot be read .+ damaged.+ clear-stop"):
        refuse_if_latched("arm")
    release("arm")
    refuse_if_latched("arm")


def test_what_cannot_be_read_is_a_stop() -> None:
    latch_path("arm").mkdir(parents=True)
    with pytest.raises(SafetyFault, match=r"a stop that cannot be read .+Is a directory"):
        refuse_if_latched("arm")


@given(st.text())
def test_a_name_cannot_leave_the_folder(name: str) -> None:
    path = latch_path(name)
    assert path.parent == state_dir() / "stops"
    assert len(os.fsencode(path.name)) < 255
    assert "/" not in path.name
    assert path.name not in (".", "..")


@given(st.text(), st.text())
def test_two_robots_never_share_a_stop(one: str, other: str) -> None:
    assert (latch_path(one) == latch_path(other)) == (one == other)


def test_a_relative_folder_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("V2A_STATE_DIR", "here")
    with pytest.raises(ConfigError, match="V2A_STATE_DIR=here: name an absolute path"):
        latch_path("arm")


def test_a_folder_that_takes_no_stop_is_said_before(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert why_not_kept() is None
    (tmp_path / "file").touch()
    monkeypatch.setenv("V2A_STATE_DIR", str(tmp_path / "file"))
    assert "set V2A_STATE_DIR to a folder" in (why_not_kept() or "")
    assert "could not be kept" in keep("arm", "test", "run")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"V2A_STATE_DIR": "/s", "XDG_STATE_HOME": "/x", "HOME": "/h"}, "/s"),
        ({"XDG_STATE_HOME": "/x", "HOME": "/h"}, "/x/v2a"),
        ({"XDG_STATE_HOME": "relative", "HOME": "/h"}, "/h/.local/state/v2a"),
        ({"HOME": "/h"}, "/h/.local/state/v2a"),
    ],
)
def test_the_folder(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], expected: str
) -> None:
    for name in ("V2A_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert state_dir() == Path(expected)


def test_without_home_the_user_database_has_it_and_else_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("V2A_STATE_DIR", "XDG_STATE_HOME", "HOME"):
        monkeypatch.delenv(name, raising=False)
    assert state_dir().is_absolute()
    monkeypatch.setattr(os, "getuid", lambda: 3_999_999_999)
    with pytest.raises(ConfigError, match=r"no home.+set V2A_STATE_DIR"):
        refuse_if_latched("arm")
