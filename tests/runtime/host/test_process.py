"""A child process imports this installation, whatever lies in the current folder."""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

import pytest

import runtime
from runtime.host import process

MODULES = ("runtime", "demo", "hw_drivers", "v2a")
SAY = "import os, sys; os.write(int(sys.argv[1]), ({what}).encode())"


def answer(module: str) -> str:
    """What `module`, run as a child process, writes to its descriptor."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        child = process.start(module, theirs.fileno())
        assert child.wait(60.0) == 0
        return ours.recv(4096).decode()


@pytest.fixture
def probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder on the path with modules to run, and the current folder, which is another one."""
    modules, here = tmp_path / "modules", tmp_path / "here"
    modules.mkdir()
    here.mkdir()
    (modules / "where.py").write_text(SAY.format(what="__import__('runtime').__file__"))
    (modules / "order.py").write_text(SAY.format(what="repr(sys.argv[0]) + sys.path[0]"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(modules)])
    monkeypatch.chdir(here)
    return here


def test_folders_named_like_packages_do_not_replace_them(probe: Path) -> None:
    for name in MODULES:
        (probe / name).mkdir()
        (probe / name / "__init__.py").write_text("raise SystemExit('the wrong package')")
    assert answer("where") == runtime.__file__


def test_a_file_named_like_a_standard_module_is_not_executed(probe: Path) -> None:
    for name in ("struct", "socket", "runpy", "json"):
        (probe / f"{name}.py").write_text(f"open({str(probe / 'ran')!r}, 'w').close()")
    assert answer("where") == runtime.__file__
    assert not (probe / "ran").exists()


@pytest.mark.parametrize("safe", ["", "1"])
def test_this_installation_comes_first(
    probe: Path, monkeypatch: pytest.MonkeyPatch, safe: str
) -> None:
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    assert answer("order").endswith(str(Path(runtime.__file__).parents[1]))


@pytest.mark.parametrize("entry", ["", ".", "HERE"])
def test_the_current_folder_is_left_out_however_it_is_named(
    probe: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    entry = os.getcwd() if entry == "HERE" else entry
    monkeypatch.setattr(sys, "path", [entry, *sys.path])
    assert {Path(path).resolve() for path in process.search_path()}.isdisjoint({probe.resolve()})
