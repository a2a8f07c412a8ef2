"""A path has one living owner, and its stale remains are nobody's."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from v2a.bound_socket import BoundSocket, PathInUseError, listening

HOLD = """
import sys, pathlib
from v2a.bound_socket import BoundSocket
bound = BoundSocket(pathlib.Path(sys.argv[1]))
print("bound", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "stop"


def send(path: Path, text: bytes = b"x") -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.sendto(text, str(path))


def holder(path: Path) -> subprocess.Popen[str]:
    """A process that owns `path`."""
    command = [sys.executable, "-c", HOLD, str(path)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=REPOSITORY)
    assert process.stdout is not None
    assert process.stdout.readline() == "bound\n"
    return process


def test_a_living_owner_keeps_its_path(path: Path) -> None:
    with BoundSocket(path) as first:
        with pytest.raises(PathInUseError, match="another run uses it"):
            BoundSocket(path)
        send(path)
        assert first.socket.recv(8) == b"x"
        assert first.is_ours


def test_another_process_keeps_its_path_until_it_is_killed(path: Path) -> None:
    with holder(path) as process:
        with pytest.raises(PathInUseError):
            BoundSocket(path)
        assert listening(path)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert path.exists()
    with BoundSocket(path) as mine:
        send(path)
        assert mine.socket.recv(8) == b"x"


def test_a_listener_that_knows_no_lock_keeps_its_path(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        with pytest.raises(PathInUseError, match="another program listens"):
            BoundSocket(path)
        send(path)
        assert other.recv(8) == b"x"


def test_a_file_that_is_no_socket_is_left_alone(path: Path) -> None:
    path.write_text("dear diary")
    with pytest.raises(OSError, match="in use"):
        BoundSocket(path)
    assert path.read_text() == "dear diary"


def test_a_path_that_was_taken_away_is_noticed(path: Path) -> None:
    with BoundSocket(path) as bound:
        path.unlink()
        assert not bound.is_ours


def test_closing_leaves_the_socket_of_a_successor(path: Path) -> None:
    bound = BoundSocket(path)
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other:
        other.bind(str(path))
        inode = os.stat(path).st_ino
        assert not bound.is_ours
        bound.close()
        assert os.stat(path).st_ino == inode


def test_closing_twice_is_as_once(path: Path) -> None:
    bound = BoundSocket(path)
    bound.close()
    bound.close()
    assert not path.exists()
    BoundSocket(path).close()
