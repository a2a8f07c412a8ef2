"""Reads the files of a bundle so that what was hashed is what is loaded.

A path may name another file a moment later. So a file is opened once, and a caller that needs its
content gets the very bytes that were hashed.
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable, Collection, Iterator
from io import FileIO
from pathlib import Path
from typing import Protocol

from v2a.errors import BundleError

_NO_LINKS = "a bundle holds its files itself: copy it with `cp -rL`"
_BLOCK_BYTES = 1 << 20

Hashed = Callable[[int], None]


class Sealed(Protocol):
    """A file's SHA-256 in the manifest; "" in a draft that is not sealed yet."""

    @property
    def sha256(self) -> str: ...


def open_regular(file: Path) -> FileIO:
    """Open a regular file for reading.

    Raises BundleError for a link, a folder, a FIFO, or a file that cannot be opened.
    """
    # Opening a FIFO waits for its writer without O_NONBLOCK; a regular file ignores the flag.
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        opened = os.open(file, flags)
    except FileNotFoundError:
        raise BundleError(
            f"{file}: named in the manifest but missing; copy the whole folder again"
        ) from None
    except OSError as error:
        if file.is_symlink():
            raise BundleError(f"{file}: is a link; {_NO_LINKS}") from None
        raise BundleError(
            f"{file}: cannot be read: {error.strerror}; copy the whole folder again"
        ) from None
    if not stat.S_ISREG(os.fstat(opened).st_mode):
        os.close(opened)
        raise BundleError(f"{file}: is not a regular file; copy the whole folder again")
    return FileIO(opened)


def sha256_of(file: Path, hashed: Hashed = lambda size: None) -> str:
    """Return the SHA-256 of a regular file. `hashed` gets the size of each block.

    Raises BundleError as `open_regular` does.
    """
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        while block := stream.read(_BLOCK_BYTES):
            digest.update(block)
            hashed(len(block))
    return digest.hexdigest()


def read_sealed(file: Path, ref: Sealed, hashed: Hashed = lambda size: None) -> bytearray:
    """Return the content of a regular file, which has the SHA-256 of `ref`.

    Without a SHA-256 in `ref`, which `load_bundle` refuses, any content is returned.
    Raises BundleError as `open_regular` does, and if the content is another.
    """
    digest = hashlib.sha256()
    with open_regular(file) as stream:
        content = bytearray(os.fstat(stream.fileno()).st_size)
        view, at = memoryview(content), 0
        while size := stream.readinto(view[at : at + _BLOCK_BYTES]):
            digest.update(view[at : at + size])
            hashed(size)
            at += size
        view.release()
        del content[at:]  # the file was cut off meanwhile
    if ref.sha256:
        check_sha256(file, digest.hexdigest(), ref)
    return content


def check_sha256(file: Path, found: str, ref: Sealed) -> None:
    """Raise BundleError unless `found` is the SHA-256 in `ref`."""
    if found != ref.sha256:
        raise BundleError(
            f"{file}: sha256 is {found[:12]}..., but the manifest says "
            f"{ref.sha256[:12] or 'none'}...; the file was changed: copy it again or export the "
            "bundle again"
        )


def unlisted(folder: Path, listed: Collection[str]) -> Iterator[str]:
    """Yield a fault for each link, special file and file that `listed` lacks, below `folder`.

    `listed` has paths relative to `folder`.
    """
    for root, folders, files in os.walk(folder):
        for path in (Path(root, name) for name in sorted(folders + files)):
            if path.is_symlink():
                yield f"{path}: is a link; {_NO_LINKS}"
            elif path.name not in folders and path.relative_to(folder).as_posix() not in listed:
                yield f"{path}: is not in the manifest; move it out of the bundle"
