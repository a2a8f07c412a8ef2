"""Cameras: a real video, a real socket, and everything that is not a camera."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from hw_drivers.cameras.camera import Camera, Frame, open_camera
from hw_drivers.cameras.datagram import pack_frame
from tests.conftest import REPOSITORY
from v2a.clock import FakeClock
from v2a.errors import CameraError

VIDEO = REPOSITORY.parent / "shared" / "video" / "robotwin_empty_cup_place.mp4"
SIZE = (96, 96)

needs_video = pytest.mark.skipif(not VIDEO.exists(), reason=f"{VIDEO} is not there")


def open_for_test(source: str, clock: FakeClock | None = None) -> Camera:
    return open_camera(source, SIZE, 20.0, clock or FakeClock())


@needs_video
def test_a_video_is_paced_at_its_own_rate() -> None:
    clock = FakeClock(start_ns=7_000_000_000)
    camera = open_for_test(f"file:{VIDEO}", clock)
    frames = [camera.read(1.0) for _ in range(5)]
    camera.close()
    assert [frame.seq for frame in frames] == [0, 1, 2, 3, 4]
    times_s = [(frame.t_capture_ns - 7_000_000_000) / 1e9 for frame in frames]
    assert times_s == pytest.approx([0.0, 0.1, 0.2, 0.3, 0.4])  # the file says 10 fps
    assert clock.now_ns() == frames[-1].t_capture_ns
    assert frames[0].image.shape == (240, 320, 3)
    assert frames[0].image.dtype == np.uint8


def test_a_synthetic_camera_leaves_out_what_nobody_read_in_time() -> None:
    clock = FakeClock(start_ns=7_000_000_000)
    camera = open_for_test("synthetic:", clock)
    frames = [camera.read(1.0) for _ in range(3)]
    clock.advance_ns(220_000_000)
    frames.append(camera.read(1.0))
    camera.close()
    assert [frame.seq for frame in frames] == [0, 1, 2, 6]
    times_s = [(frame.t_capture_ns - 7_000_000_000) / 1e9 for frame in frames]
    assert times_s == pytest.approx([0.0, 0.05, 0.1, 0.3])
    assert frames[0].image.shape == (96, 96, 3)
    assert frames[0].image.dtype == np.uint8
    assert (frames[0].image != frames[1].image).any()


@needs_video
def test_a_video_is_rgb() -> None:
    camera = open_for_test(f"file:{VIDEO}")
    image = camera.read(1.0).image
    camera.close()
    capture = cv2.VideoCapture(str(VIDEO))
    bgr = capture.read()[1]
    capture.release()
    np.testing.assert_array_equal(image, cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB))


@needs_video
def test_a_video_ends() -> None:
    camera = open_for_test(f"file:{VIDEO}")
    for _ in range(272):
        camera.read(1.0)
    with pytest.raises(CameraError, match=r"empty_cup_place.mp4: ended after 272 frames"):
        camera.read(1.0)
    camera.close()


@needs_video
def test_a_reader_in_a_hurry_is_told_when() -> None:
    camera = open_for_test(f"file:{VIDEO}")
    camera.read(0.01)
    with pytest.raises(CameraError, match=r"no frame within 0.01 s; one is due every 0.1 s"):
        camera.read(0.01)
    camera.close()


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("file:{tmp}/none.mp4", "none.mp4: no such file; expected a video file"),
        ("file:{tmp}", "is a directory; expected a video file"),
        ("file:{tmp}/notes.mp4", "notes.mp4: is not a video that OpenCV can read"),
        ("/dev/video97", r"/dev/video97: no such camera \(found: "),
        ("gst:nonsense ! appsink", "gst:nonsense ! appsink: cannot be opened; try it with gst-"),
        ("usb:0", "unknown kind of camera; a source begins with file:, /dev/, device:, gst:, rtsp"),
        ("file:{tmp}/p_%04d.png", "p_%04d.png: no picture fits this pattern; expected a video"),
        ("device:{tmp}/none", r"none: no such camera \(found: "),
        ("socket:{tmp}/none/camera", "socket:.+: cannot be opened: No such file or directory"),
        ("socket:{tmp}/notes.mp4", "socket:.+: cannot be opened: Address already in use"),
    ],
)
def test_what_is_not_a_camera_says_what_to_do(tmp_path: Path, source: str, message: str) -> None:
    (tmp_path / "notes.mp4").write_text("not a video")
    with pytest.raises(CameraError, match=message):
        open_for_test(source.format(tmp=tmp_path))
    assert (tmp_path / "notes.mp4").read_text() == "not a video"


@pytest.fixture
def socket_path(tmp_path: Path) -> Path:
    return tmp_path / "camera"


@pytest.fixture
def camera(socket_path: Path) -> Iterator[Camera]:
    camera = open_for_test(f"socket:{socket_path}")
    yield camera
    camera.close()


@pytest.fixture
def sender(camera: Camera, socket_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.connect(str(socket_path))
        yield sender


def frame(seq: int, height: int = 96, width: int = 96) -> Frame:
    image = np.random.default_rng(seq).integers(0, 256, (height, width, 3), np.uint8)
    return Frame(seq, 1_000 + seq, 3, image)


@pytest.mark.parametrize(("height", "width"), [(96, 96), (48, 64), (240, 320)])
def test_a_picture_arrives_as_it_was_sent(
    camera: Camera, sender: socket.socket, height: int, width: int
) -> None:
    sender.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 19)
    sent = frame(5, height, width)
    sender.send(pack_frame(sent))
    received = camera.read(1.0)
    assert (received.seq, received.t_capture_ns, received.epoch) == (5, 1_005, 3)
    np.testing.assert_array_equal(received.image, sent.image)


def test_the_newest_picture_wins(camera: Camera, sender: socket.socket) -> None:
    for seq in range(4):
        sender.send(pack_frame(frame(seq)))
    first = camera.read(1.0)
    assert first.seq == 3
    sender.send(pack_frame(frame(4)))
    assert camera.read(1.0).seq == 4
    np.testing.assert_array_equal(first.image, frame(3).image)  # not overwritten by the next


def test_a_camera_that_stops_says_so(camera: Camera, sender: socket.socket) -> None:
    sender.send(pack_frame(frame(0)))
    sender.close()
    camera.read(1.0)
    with pytest.raises(CameraError, match=r"no picture within 0.01 s; is the simulator running"):
        camera.read(0.01)


@pytest.mark.parametrize(
    "datagram",
    [
        b"",
        b"short",
        b"XXXX" + bytes(60),
        pack_frame(frame(0))[:-1],
        pack_frame(frame(0, 0, 96)),
        pack_frame(frame(0, 96, 0)),
    ],
)
def test_what_is_not_a_picture_says_so(
    camera: Camera, sender: socket.socket, datagram: bytes
) -> None:
    sender.send(datagram)
    with pytest.raises(CameraError, match=f"a datagram of {len(datagram)} bytes .*is no picture"):
        camera.read(1.0)


def test_a_camera_of_another_run_keeps_its_socket(
    camera: Camera, sender: socket.socket, socket_path: Path
) -> None:
    with pytest.raises(CameraError, match="another run uses it; end that run"):
        open_for_test(f"socket:{socket_path}")
    image = np.zeros((2, 2, 3), np.uint8)
    sender.send(pack_frame(Frame(7, 0, 0, image)))
    assert camera.read(1.0).seq == 7


def test_a_socket_that_a_killed_run_left_behind_is_replaced(socket_path: Path) -> None:
    left = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    left.bind(str(socket_path))
    left.close()
    camera = open_for_test(f"socket:{socket_path}")
    camera.close()
    camera.close()
    assert not socket_path.exists()
