"""A Unix datagram socket at a path of the file system, owned by one living process at a time.

A program that was killed leaves a path that nobody can bind again. Unlinking it blindly is worse:
that takes the path from a program that still listens there. So the owner holds a lock (`flock`) on
a file beside the path, and the kernel releases the lock when the owner dies.
"""

from __future__ import annotations

import fcntl
import os
import socket
import stat
from pathlib import Path

LOCK_SUFFIX = ".lock"


class PathInUseError(OSError):
    """Another process listens at the path."""


class BoundSocket:
    """The socket and its path; `with` or `close` gives both up.

    Raises PathInUseError when another process owns the path, OSError when it cannot be bound.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = _lock(path)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            _remove_stale(path)
            self.socket.bind(str(path))
            self._identity = _identity(path)
        except BaseException:
            self.socket.close()
            os.close(self._lock)
            raise

    @property
    def is_ours(self) -> bool:
        """Whether the path still leads to this socket: somebody may have removed or replaced it."""
        return self._identity is not None and _identity(self.path) == self._identity

    def close(self) -> None:
        """Close the socket and remove the path, unless another socket is there by now."""
        if self.socket.fileno() < 0:
            return
        if self.is_ours:
            self.path.unlink(missing_ok=True)
        self.socket.close()
        os.close(self._lock)

    def __enter__(self) -> BoundSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def listening(path: Path) -> bool:
    """Whether a process has a datagram socket bound at `path`."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as probe:
        return probe.connect_ex(str(path)) == 0


def _lock(path: Path) -> int:
    """The descriptor of the locked file beside `path`. It stays there: removing it would race."""
    name = f"{path}{LOCK_SUFFIX}"
    lock = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(lock)
        raise PathInUseError(error.errno, "another run uses it", str(path)) from error
    return lock


def _remove_stale(path: Path) -> None:
    """Remove a socket that nobody listens at; whatever else is there makes the bind fail."""
    if listening(path):  # bound by a program that knows no lock
        raise PathInUseError(0, "another program listens there", str(path))
    try:
        if stat.S_ISSOCK(path.lstat().st_mode):
            path.unlink()
    except FileNotFoundError:
        pass


def _identity(path: Path) -> tuple[int, int] | None:
    """Device and inode of what is at `path`, None for nothing."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
