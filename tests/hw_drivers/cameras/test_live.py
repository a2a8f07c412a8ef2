"""Live cameras: deadlines, pixel formats, what was negotiated, frozen pictures."""

from __future__ import annotations

import http.server
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hw_drivers.cameras.camera import Camera, open_camera, report_of
from hw_drivers.cameras.freeze import FreezeWatch
from hw_drivers.cameras.live import LiveCamera
from hw_drivers.cameras.pictures import conversion_for, format_of_pipeline
from tests.conftest import REPOSITORY
from tests.hw_drivers.cameras.captures import FakeCapture, noise
from v2a.clock import FakeClock, MonotonicClock
from v2a.errors import CameraError

Plug = Callable[[FakeCapture], FakeCapture]
DEVICE = "device:/dev/null"  # a path that exists everywhere; the capture is a stand-in


def open_device(source: str = DEVICE, timeout_s: float = 0.2, **options: Any) -> Camera:
    return open_camera(source, (64, 48), 20.0, MonotonicClock(), timeout_s, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        ("open", "/dev/null: did not open within 0.2 s; check the camera"),
        ("set", "/dev/null: did not accept its settings within 0.2 s; check"),
        ("first grab", "/dev/null: no picture within 0.2 s; check"),
        ("retrieve", "/dev/null: no picture within 0.2 s; check"),
    ],
)
def test_a_camera_that_hangs_while_it_opens_is_an_error(
    plug_in: Plug, call: str, message: str
) -> None:
    capture = plug_in(FakeCapture(hangs_in=call))
    with pytest.raises(CameraError, match=message):
        open_device()
    assert not capture.released  # OpenCV may crash if it is released under its reader
    capture.go_on.set()


def test_a_camera_that_hangs_later_is_an_error_and_is_not_released(plug_in: Plug) -> None:
    capture = plug_in(FakeCapture(hangs_in="grab"))
    camera = open_device()
    for _ in range(2):  # the second time at once: the thread is lost
        with pytest.raises(CameraError, match=r"/dev/null: no picture within 0.2 s"):
            camera.read(0.2)
    camera.close()
    camera.close()
    assert not capture.released
    capture.go_on.set()


def test_a_camera_that_hangs_in_its_release_does_not_hold_up_the_end(plug_in: Plug) -> None:
    capture = plug_in(FakeCapture(hangs_in="release"))
    camera = open_device()
    camera.read(0.2)
    camera.close()
    assert not capture.released  # the capture still hangs, and `close` did not wait for it
    capture.go_on.set()


def test_a_capture_is_released_when_its_camera_is_closed(plug_in: Plug) -> None:
    capture = plug_in(FakeCapture())
    camera = open_device()
    camera.close()
    assert capture.released


def test_a_hanging_camera_does_not_hang_the_process() -> None:
    script = (
        "from tests.hw_drivers.cameras.captures import FakeCapture\n"
        "import cv2; cv2.VideoCapture = lambda *_: FakeCapture(hangs_in='grab')\n"
        "from hw_drivers.cameras.camera import open_camera\n"
        "from v2a.clock import MonotonicClock\n"
        "camera = open_camera('device:/dev/null', (64, 48), 20.0, MonotonicClock(), 0.2)\n"
        "camera.read(0.2)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    assert "CameraError: /dev/null: no picture within 0.2 s" in done.stderr


class Stream(http.server.BaseHTTPRequestHandler):
    """An MJPEG camera in the network that sends 20 pictures and then stalls."""

    go_on = threading.Event()

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=b")
        self.end_headers()
        for number in range(20):
            data = cv2.imencode(".jpg", noise(number, 240, 320))[1].tobytes()
            self.wfile.write(b"--b\r\nContent-Type: image/jpeg\r\n")
            self.wfile.write(b"Content-Length: %d\r\n\r\n" % len(data) + data + b"\r\n")
        self.wfile.flush()
        self.go_on.wait(60)

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def address() -> Iterator[str]:
    Stream.go_on.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Stream) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://user:secret@127.0.0.1:{server.server_port}/stream.mjpg"
        Stream.go_on.set()
        server.shutdown()


def read_all(camera: Camera) -> None:
    for _ in range(20):
        camera.read(1.0)


def test_a_camera_in_the_network_that_stalls_is_an_error_without_its_password(address: str) -> None:
    camera = open_camera(address, (64, 48), 20.0, MonotonicClock(), 5.0)
    assert camera.read(5.0).image.shape == (240, 320, 3)
    with pytest.raises(CameraError, match=r"http://\*\*\*@127.+: no picture within 1 s; check"):
        read_all(camera)
    camera.close()


def test_an_address_where_nothing_listens_is_an_error() -> None:
    with pytest.raises(CameraError, match=r"http://127.0.0.1:9/x.mjpg: cannot be opened; is the"):
        open_camera("http://127.0.0.1:9/x.mjpg", (64, 48), 20.0, MonotonicClock(), 5.0)


RGB = noise(1)
BGR = np.ascontiguousarray(RGB[..., ::-1])
SMOOTH = cv2.GaussianBlur(RGB, (0, 0), 8)  # chroma is subsampled: only a smooth picture survives
FORMATS = {
    "BGR": (None, BGR, RGB),
    "BGRx": (None, np.dstack([BGR, BGR[..., :1]]), RGB),
    "RGBA told": ("RGBA", np.dstack([RGB, RGB[..., :1]]), RGB),
    "RGB told": ("RGB", RGB, RGB),
    "gray": (None, RGB[..., 0], np.dstack([RGB[..., 0]] * 3)),
    "gray, 1 channel": (None, RGB[..., :1], np.dstack([RGB[..., 0]] * 3)),
    "16 bit": (None, RGB[..., 0].astype(np.uint16) << 8 | 77, np.dstack([RGB[..., 0]] * 3)),
    "12 bit": ("Y12", RGB[..., 0].astype(np.uint16) << 4 | 7, np.dstack([RGB[..., 0]] * 3)),
    "16 bit BGR": (None, BGR.astype(np.uint16) << 8, RGB),
    "I420": ("I420", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_I420), SMOOTH),
    "YV12": ("YV12", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_YV12), SMOOTH),
    "UYVY": ("UYVY", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_UYVY), SMOOTH),
    "YUY2": ("YUY2", cv2.cvtColor(SMOOTH, cv2.COLOR_RGB2YUV_YUY2), SMOOTH),
    "JPEG": (None, cv2.imencode(".png", BGR)[1].reshape(1, -1), None),
}


def nv12(rgb: Any) -> Any:
    """I420's planes with U and V interleaved."""
    height, width, _ = rgb.shape
    planar = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    luma, chroma = planar[: height * width], planar[height * width :].reshape(2, -1)
    return np.concatenate([luma, chroma.T.reshape(-1)]).reshape(-1, width)


FORMATS["NV12"] = ("NV12", nv12(SMOOTH), SMOOTH)
FORMATS["JPEG"] = (None, cv2.imencode(".jpg", BGR[:, :, ::-1])[1].reshape(1, -1), None)


@pytest.mark.parametrize("name", FORMATS)
def test_what_is_convertible_becomes_rgb(name: str) -> None:
    told, picture, expected = FORMATS[name]
    found = conversion_for(picture, told, ((64, 48),), "cam", "fix").to_rgb(picture)
    assert found.shape == (48, 64, 3)
    assert found.dtype == np.uint8
    if expected is not None:
        difference = np.abs(found.astype(int) - expected)
        assert difference.mean() < (4 if told in ("I420", "YV12", "UYVY", "YUY2", "NV12") else 0.01)


@pytest.mark.parametrize(
    ("picture", "message"),
    [
        (nv12(RGB), r"cam: a picture is uint8 \[72x64\], and not BGR; the fix"),
        (RGB[..., :2], r"cam: a picture is uint8 \[48x64x2\], and not BGR; the fix"),
        (RGB.astype(np.float32), r"cam: a picture is float32 \[48x64x3\], and not BGR; the fix"),
        (np.zeros((0, 64, 3), np.uint8), "cam: delivers no picture"),
        (np.zeros((1, 999), np.uint8), r"cam: a picture is uint8 \[1x999\]"),
        (np.zeros(9, np.uint8), "cam: delivers no picture"),
        (None, "cam: delivers no picture"),
    ],
)
def test_what_is_not_convertible_names_the_fix(picture: Any, message: str) -> None:
    with pytest.raises(CameraError, match=message):
        conversion_for(picture, None, ((64, 48),), "cam", "the fix")


@given(
    st.lists(st.integers(0, 9), max_size=4),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.float64, np.bool_]),
    st.sampled_from([None, "NV12", "YUY2", "RGB", "GRAY8", "Y10", "JUNK"]),
)
def test_any_array_is_a_picture_or_a_camera_error(
    shape: list[int], dtype: Any, told: str | None
) -> None:
    picture = np.zeros(shape, dtype)
    try:
        found = conversion_for(picture, told, ((6, 4),), "cam", "fix").to_rgb(picture)
    except CameraError:
        return
    assert found.ndim == 3
    assert found.shape[2] == 3


@pytest.mark.parametrize(
    ("pipeline", "told"),
    [
        ("nvarguscamerasrc ! video/x-raw(memory:NVMM),format=NV12 ! nvvidconv ! appsink", "NV12"),
        ("v4l2src ! video/x-raw,format=(string)YUY2 ! appsink", "YUY2"),
        ("a ! video/x-raw, format = NV12 ! videoconvert ! video/x-raw, format=BGR ! b", "BGR"),
        ("videotestsrc ! appsink", None),
    ],
)
def test_the_last_format_of_a_pipeline_counts(pipeline: str, told: str | None) -> None:
    assert format_of_pipeline(pipeline) == told


NV12_PIPELINE = "gst:nvarguscamerasrc ! video/x-raw,format=NV12 ! appsink"


def test_a_pipeline_that_names_its_format_is_converted(plug_in: Plug) -> None:
    plug_in(FakeCapture(picture=lambda k: nv12(SMOOTH)))
    camera = open_device(NV12_PIPELINE)
    found = camera.read(0.2).image
    camera.close()
    assert np.abs(found.astype(int) - SMOOTH).mean() < 4
    assert report_of(camera).facts["converted from"] == "NV12"


def test_a_pipeline_that_does_not_name_its_format_is_told_its_end(plug_in: Plug) -> None:
    capture = plug_in(FakeCapture(picture=lambda k: nv12(SMOOTH)))
    with pytest.raises(CameraError) as told:
        open_device("gst:v4l2src ! appsink")
    assert "! videoconvert ! video/x-raw,format=BGR ! appsink drop=1" in str(told.value)
    assert capture.released


@pytest.mark.parametrize("source", [NV12_PIPELINE, "rtsp://user:secret@10.0.0.7/live"])
@pytest.mark.parametrize("call", ["open", "first grab", "grab"])
def test_every_kind_of_live_camera_has_a_deadline(plug_in: Plug, source: str, call: str) -> None:
    capture = plug_in(FakeCapture(hangs_in=call, picture=lambda k: noise(k, 72, 64)))
    with pytest.raises(CameraError, match=r": (did not open|no picture) within 0.2 s; ") as told:
        open_device(source).read(0.2)
    assert "secret" not in str(told.value)
    capture.go_on.set()


def test_what_was_negotiated_is_reported(plug_in: Plug) -> None:
    mjpg = float(cv2.VideoWriter.fourcc(*"MJPG"))
    capture = plug_in(
        FakeCapture(
            picture=lambda k: noise(k, 72, 128),
            settings={cv2.CAP_PROP_FPS: 5.0, cv2.CAP_PROP_FOURCC: mjpg},
        )
    )
    camera = open_device(pixel_format="MJPG")
    report = report_of(camera)
    assert capture.asked[cv2.CAP_PROP_FOURCC] == mjpg
    assert next(iter(capture.asked)) == cv2.CAP_PROP_FOURCC  # it decides what else there is
    assert report.facts == {
        "source": "/dev/null",
        "size": "128x72 (asked for 64x48)",
        "pixel format": "MJPG",
        "rate granted": "5 Hz",
    }
    assert "the driver grants 5 pictures a second; camera.fps asks for 20" in report.remarks[0][1]
    camera.close()


def test_a_pixel_format_that_the_driver_refuses_is_an_error(plug_in: Plug) -> None:
    plug_in(FakeCapture(settings={cv2.CAP_PROP_FOURCC: cv2.VideoWriter.fourcc(*"YUYV")}))
    with pytest.raises(CameraError, match=r"gives YUYV instead of camera.pixel_format MJPG"):
        open_device(pixel_format="MJPG")


def read_for(seconds: float, picture: Callable[[int], Any]) -> LiveCamera:
    """Read 20 pictures a second from a fake device for so many seconds of a fake clock."""
    clock = FakeClock()
    capture = FakeCapture(picture=picture)
    camera = LiveCamera("cam", capture, clock)  # type: ignore[arg-type]
    for _ in range(round(seconds * 20)):
        camera.read(5.0)
        clock.advance_ns(50_000_000)
    return camera


def test_a_frozen_picture_is_first_a_remark_and_then_an_error() -> None:
    camera = read_for(1.9, lambda k: noise(7))
    (remark,) = (text for _, text in camera.report.remarks)
    assert "the picture has not changed for 1.0 s; the camera has frozen" in remark
    assert camera.report.counts["unchanged_pictures"] == 37
    with pytest.raises(CameraError, match=r"cam: not one bit of the picture has changed for 2.0 s"):
        read_for(2.5, lambda k: noise(7))


def test_one_changed_bit_is_a_living_camera() -> None:
    def still(number: int) -> Any:
        picture = noise(7)
        picture[13, 17, 1] = number % 2
        return picture

    assert not read_for(5.0, still).report.remarks


def test_a_covered_lens_is_a_remark_only() -> None:
    camera = read_for(5.0, lambda k: np.full((48, 64, 3), (0, 0, 255), np.uint8))
    (remark,) = (text for _, text in camera.report.remarks)
    assert "is the lens covered, or the light off?" in remark


def test_a_pause_between_equal_pictures_proves_nothing() -> None:
    watch = FreezeWatch(gap_max_s=0.2)
    assert watch.unchanged_s(RGB, 0) == 0.0
    assert watch.unchanged_s(RGB.copy(), 9_000_000_000) == 0.2


def test_a_device_has_any_path(plug_in: Plug, tmp_path: Path, monkeypatch: Any) -> None:
    opened: list[str] = []
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "wrist camera").touch()

    def capture(path: str, _backend: int) -> FakeCapture:
        opened.append(path)
        return FakeCapture()

    monkeypatch.setattr(cv2, "VideoCapture", capture)
    for source in ("/dev/null", "device:/dev/null", "device:~/wrist camera"):
        open_device(source).close()
    assert opened == ["/dev/null", "/dev/null", str(tmp_path / "wrist camera")]


def test_decoding_stays_on_the_cores_of_its_reader(plug_in: Plug) -> None:
    cores: list[set[int]] = []

    def picture(number: int) -> Any:
        cores.append(os.sched_getaffinity(0))
        return noise(number)

    plug_in(FakeCapture(picture=picture))
    camera = open_device(timeout_s=5.0)
    wanted = {max(os.sched_getaffinity(0))}

    def read() -> None:
        os.sched_setaffinity(0, wanted)
        camera.read(5.0)

    reader = threading.Thread(target=read)
    reader.start()
    reader.join()
    camera.close()
    assert cores[-1] == wanted
