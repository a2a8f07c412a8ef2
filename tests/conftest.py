"""Fixtures for every room."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir

REPOSITORY = Path(__file__).resolve().parent.parent

# By default it is below the folder where pytest was started, which may be read-only.
set_hypothesis_home_dir(REPOSITORY / ".hypothesis")
settings.register_profile("v2a", deadline=None)  # a busy machine is no fault of the code
settings.load_profile("v2a")


def pytest_configure() -> None:
    """Give the programs that tests start the signals of a program started from a terminal.

    `nohup` ignores SIGHUP and a shell's `&` ignores SIGINT. A child process inherits an ignored
    signal. It does not inherit a handler, and this one lets pytest itself go on as before.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, lambda *_: None)
    # As in an activated environment: advice then says `v2a`, whichever way pytest was started.
    programs = str(Path(sys.executable).parent)
    os.environ["PATH"] = f"{programs}{os.pathsep}{os.environ.get('PATH', '')}"


@pytest.fixture(autouse=True)
def state_dir(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Keep emergency stops of tests out of the user's state folder."""
    folder = tmp_path_factory.mktemp("state")
    monkeypatch.setenv("V2A_STATE_DIR", str(folder))
    return folder


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference material beside a checkout: real camera video, golden tensors."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("the reference material (../shared) is not beside this checkout")
    return path
