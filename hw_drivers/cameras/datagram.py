"""The simulated camera: pictures from another process on this machine, one per Unix datagram.

Datagram: "V2AF", seq uint32, t_capture_ns int64, epoch int64, height uint16, width uint16, then
height * width * 3 bytes RGB; little-endian.
"""

from __future__ import annotations

import contextlib
import select
import struct
from pathlib import Path

import numpy as np

from hw_drivers.cameras.camera import Frame, Request
from v2a.bound_socket import BoundSocket, PathInUseError
from v2a.errors import CameraError

_HEADER = struct.Struct("<4sIqqHH")
_MAGIC = b"V2AF"
# Larger than any datagram: Linux limits it by the sender's buffer, net.core.wmem_max (208 KiB).
_MAX_DATAGRAM = 1 << 20
# More than a queue holds (net.unix.max_dgram_qlen), so a fast sender cannot keep the reader busy.
_MAX_QUEUED = 1000


def pack_frame(frame: Frame) -> bytes:
    """Build the datagram of a frame. Above 200 KB, a sender must raise SO_SNDBUF first."""
    height, width, _ = frame.image.shape
    header = _HEADER.pack(_MAGIC, frame.seq, frame.t_capture_ns, frame.epoch, height, width)
    return header + frame.image.tobytes()


def unpack_frame(datagram: bytes | memoryview) -> Frame:
    """Parse a datagram into its frame. Raises CameraError if it is not a picture."""
    if len(datagram) < _HEADER.size:
        raise CameraError(f"a datagram of {len(datagram)} bytes is no picture; what sends it?")
    magic, seq, t_capture_ns, epoch, height, width = _HEADER.unpack_from(datagram)
    expected = _HEADER.size + height * width * 3
    if magic != _MAGIC or len(datagram) != expected or height * width == 0:
        raise CameraError(
            f"a datagram of {len(datagram)} bytes beginning with {magic!r} is no picture; expected "
            f"{expected} bytes beginning with {_MAGIC!r}: sender and receiver differ in version"
        )
    image = np.frombuffer(datagram, np.uint8, offset=_HEADER.size).reshape(height, width, 3)
    return Frame(seq, t_capture_ns, epoch, image.copy())


class SocketCamera:
    """Reads the newest picture that has arrived, and drops older ones."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._buffer = memoryview(bytearray(_MAX_DATAGRAM))
        try:
            self._bound = BoundSocket(path)
        except PathInUseError as error:
            raise CameraError(
                f"socket:{path}: {error.strerror}; end that run, or give each camera a path of "
                "its own"
            ) from error
        except OSError as error:
            raise CameraError(
                f"socket:{path}: cannot be opened: {error.strerror or error}; "
                "choose a path in a directory that you may write to"
            ) from error
        self._socket = self._bound.socket
        self._socket.setblocking(False)

    def read(self, timeout_s: float) -> Frame:
        """See `Camera`."""
        if not select.select([self._socket], [], [], timeout_s)[0]:
            raise CameraError(
                f"socket:{self._path}: no picture within {timeout_s} s; is the simulator running?"
            )
        size = 0
        with contextlib.suppress(BlockingIOError):  # no datagram is left
            for _ in range(_MAX_QUEUED):
                size = self._socket.recv_into(self._buffer)
        try:
            return unpack_frame(self._buffer[:size])
        except CameraError as error:
            raise CameraError(f"socket:{self._path}: {error}") from None

    def close(self) -> None:
        """See `Camera`."""
        self._bound.close()


def open_socket(source: str, _request: Request) -> SocketCamera:
    """Open the socket of `source`. Size, rate and time stamps are the sender's."""
    return SocketCamera(Path(source.removeprefix("socket:")).expanduser())
