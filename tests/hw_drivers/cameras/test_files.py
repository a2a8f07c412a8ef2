"""Recorded pictures as a camera: their pace, their end, what cannot be decoded."""

from __future__ import annotations

import itertools
import os
import shutil
import sys
import threading
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from hw_drivers.cameras import readers
from hw_drivers.cameras.camera import Camera, Frame, Request, open_camera, report_of
from hw_drivers.cameras.files import FileCamera
from hw_drivers.cameras.foreign import ForeignThread
from hw_drivers.cameras.readers import OpenCvReader, PyAvReader
from v2a.clock import FakeClock
from v2a.errors import CameraEnded, CameraError

MS = 1_000_000


def noise(number: int) -> Any:
    small = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return cv2.resize(small, (64, 48), interpolation=cv2.INTER_NEAREST)


def film(path: Path, times_ms: list[int], codec: str = "libx264", **options: Any) -> Path:
    """Encode pictures of noise, shown at these times."""
    av = pytest.importorskip("av", reason="PyAV is not installed: it makes the videos")
    if codec not in av.codecs_available:
        pytest.skip(f"this PyAV has no encoder {codec}")
    with av.open(str(path), "w", **options) as container:
        stream = container.add_stream(codec, rate=20)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.time_base = Fraction(1, 1000)
        stream.codec_context.time_base = Fraction(1, 1000)
        for number, time_ms in enumerate(times_ms):
            frame = av.VideoFrame.from_ndarray(noise(number), format="rgb24")
            frame.pts, frame.time_base = time_ms, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def open_file(source: Path | str, clock: FakeClock | None = None, fps: float = 20.0) -> Camera:
    return open_camera(f"file:{source}", (64, 48), fps, clock or FakeClock(), 10.0)


def played(camera: Camera) -> tuple[list[Frame], CameraError]:
    """All frames, and how it ended."""
    frames = []
    try:
        while True:
            frames.append(camera.read(10.0))
    except CameraError as ended:
        camera.close()
        return frames, ended


def times_ms(frames: list[Frame]) -> list[int]:
    return [round((frame.t_capture_ns - frames[0].t_capture_ns) / MS) for frame in frames]


EVEN = list(range(0, 2000, 50))
UNEVEN = [0, 20, 40, 60, 260, 460, 660, 680, 700]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.webm", "libvpx-vp9")])
def test_a_variable_rate_is_kept(tmp_path: Path, name: str, codec: str) -> None:
    camera = open_file(film(tmp_path / name, UNEVEN, codec))
    frames, ended = played(camera)
    assert isinstance(ended, CameraEnded)
    assert times_ms(frames) == UNEVEN
    assert report_of(camera).facts["pace"] == "time stamps"
    assert not report_of(camera).remarks


def test_a_raw_stream_comes_at_the_rate_of_robot_yaml_and_says_so(tmp_path: Path) -> None:
    camera = open_file(film(tmp_path / "a.h264", EVEN), fps=40.0)
    frames, ended = played(camera)
    assert isinstance(ended, CameraEnded)
    assert times_ms(frames) == [25 * k for k in range(40)]
    (remark,) = (text for _, text in report_of(camera).remarks)
    assert "its pictures have no time stamps, so they come at camera.fps, 40 Hz" in remark


def index_first(tmp_path: Path, times: list[int]) -> bytes:
    """An MP4 whose index comes first, so that a part of it opens."""
    return film(tmp_path / "whole.mp4", times, options={"movflags": "faststart"}).read_bytes()


@pytest.mark.parametrize("share", [0.4, 0.7, 0.9])
def test_a_part_of_a_file_is_an_error(tmp_path: Path, share: float) -> None:
    whole = index_first(tmp_path, EVEN)
    (tmp_path / "part.mp4").write_bytes(whole[: round(share * len(whole))])
    frames, ended = played(open_file(tmp_path / "part.mp4"))
    assert not isinstance(ended, CameraEnded)
    assert f"part.mp4: ended after {len(frames)} of 40 frames: the file is cut off" in str(ended)
    assert "ffmpeg -i" in str(ended)


@pytest.mark.parametrize(("begin", "end"), [(0.4, 0.5), (0.6, 1.0)])
def test_a_file_with_damage_inside_is_an_error(tmp_path: Path, begin: float, end: float) -> None:
    whole = bytearray(index_first(tmp_path, EVEN))
    first, last = round(begin * len(whole)), round(end * len(whole))
    whole[first:last] = bytes(last - first)
    (tmp_path / "hole.mp4").write_bytes(whole)
    frames, ended = played(open_file(tmp_path / "hole.mp4"))
    assert len(frames) < 40
    assert f"ended after {len(frames)} of 40 frames: the file is cut off or damaged" in str(ended)


def test_a_whole_file_just_ends(tmp_path: Path) -> None:
    (tmp_path / "same.mp4").write_bytes(index_first(tmp_path, EVEN))
    frames, ended = played(open_file(tmp_path / "same.mp4"))
    assert str(ended) == f"{tmp_path}/same.mp4: ended after 40 frames"
    assert isinstance(ended, CameraEnded)
    assert len(frames) == 40


def test_pyav_decodes_what_opencv_cannot(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = film(tmp_path / "a.mp4", UNEVEN)
    with_opencv = played(open_file(path))[0]
    monkeypatch.setattr(OpenCvReader, "grab", lambda self: None)
    camera = open_file(path)
    frames, ended = played(camera)
    assert isinstance(ended, CameraEnded)
    assert report_of(camera).facts["decoder"] == "PyAV"
    assert times_ms(frames) == UNEVEN
    for one, other in zip(frames, with_opencv, strict=True):
        assert np.abs(one.image.astype(int) - other.image).mean() < 3


def test_what_nothing_decodes_names_the_codec_and_the_fix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = film(tmp_path / "a.mp4", EVEN)
    monkeypatch.setattr(OpenCvReader, "grab", lambda self: None)
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(CameraError) as told:
        open_file(path)
    assert f"{path}: no picture of it can be decoded (codec h264); convert it with `ffmpeg -i" in (
        str(told.value)
    )
    assert f"`{sys.executable} -m pip install av`" in str(told.value)


def test_pyav_also_notices_a_part_of_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = index_first(tmp_path, EVEN)
    (tmp_path / "part.mp4").write_bytes(whole[: len(whole) // 2])
    monkeypatch.setattr(readers, "OpenCvReader", lambda capture: EmptyReader())
    frames, ended = played(open_file(tmp_path / "part.mp4"))
    assert frames
    assert f"ended after {len(frames)} of 40 frames: the file is cut off" in str(ended)


class EmptyReader:
    def grab(self) -> None: ...


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Pictures 8, 9, 10 and 100 of noise, and a file that is none."""
    folder = tmp_path / "pictures 100%"
    folder.mkdir()
    for number in (100, 8, 10, 9):
        cv2.imwrite(str(folder / f"p_{number}.png"), noise(number)[..., ::-1])
    (folder / "notes.txt").write_text("no picture")
    return folder


@pytest.mark.parametrize(
    ("name", "numbers"),
    [("", [8, 9, 10, 100]), ("p_%d.png", [8, 9, 10, 100]), ("p_%02d.png", [10, 100])],
)
def test_pictures_come_in_the_order_of_their_numbers(
    pictures: Path, name: str, numbers: list[int]
) -> None:
    camera = open_file(pictures / name, fps=10.0)
    frames, ended = played(camera)
    assert isinstance(ended, CameraEnded)
    assert times_ms(frames) == [100 * k for k in range(len(numbers))]
    assert not report_of(camera).remarks  # nobody expects time stamps there
    for frame, number in zip(frames, numbers, strict=True):
        np.testing.assert_array_equal(frame.image, noise(number))


def test_a_broken_picture_is_named(pictures: Path) -> None:
    (pictures / "p_11.png").write_text("no picture")
    frames, ended = played(open_file(pictures))
    assert len(frames) == 3
    assert f"{pictures}/p_11.png: is not a picture that OpenCV can read" in str(ended)


def test_a_tilde_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    film(tmp_path / "a.mp4", EVEN)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(played(open_file("~/a.mp4"))[0]) == 40


def test_a_name_with_a_percent_sign_may_be_a_video(tmp_path: Path) -> None:
    shutil.copy(film(tmp_path / "a.mp4", EVEN), tmp_path / "speed_50%d.mp4")
    assert len(played(open_file(tmp_path / "speed_50%d.mp4"))[0]) == 40


def test_a_fifo_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(CameraError, match="fifo: is not a regular file; expected a video file"):
        open_file(tmp_path / "fifo")


class SlowReader:
    """A file of 20 Hz; to grab picture k takes `cost_ms(k)` of a fake clock."""

    decoder, total, duration_s = "slow", 0, 0.0

    def __init__(self, clock: FakeClock, cost_ms: Callable[[int], int], stop: bool = False) -> None:
        self._clock, self._cost_ms, self._number = clock, cost_ms, -1
        self.go_on = threading.Event()
        self._stop = stop

    def grab(self) -> float:
        self._number += 1
        if self._stop and self._number == 3:
            self.go_on.wait()
        self._clock.advance_ns(self._cost_ms(self._number) * MS)
        return self._number * 0.05

    def retrieve(self) -> Any:
        return noise(self._number)

    def close(self) -> None: ...


def camera_of(reader: SlowReader, clock: FakeClock) -> FileCamera:
    request = Request((64, 48), 20.0, clock, 0.2, None)
    return FileCamera("slow.mp4", reader, request, ForeignThread("slow.mp4", "advice"))


def test_a_file_that_falls_behind_drops_pictures_and_keeps_its_time() -> None:
    clock = FakeClock()
    reader = SlowReader(clock, lambda k: 420 if k == 5 else 1)
    camera = camera_of(reader, clock)
    frames = [camera.read(5.0) for _ in range(20)]
    skipped = [b.seq - a.seq - 1 for a, b in itertools.pairwise(frames)]
    assert sum(skipped) == camera.report.counts["dropped_late"] == 7
    assert all(frame.t_capture_ns == frame.seq * 50 * MS for frame in frames)
    assert not camera.report.remarks


def test_a_file_that_cannot_keep_up_plays_slowly_and_says_so() -> None:
    clock = FakeClock()
    camera = camera_of(SlowReader(clock, lambda k: 70), clock)
    frames = [camera.read(5.0) for _ in range(40)]
    gaps_ms = np.diff([frame.t_capture_ns for frame in frames]) / MS
    assert gaps_ms.max() <= 500  # it never waits to catch up what it cannot
    (remark,) = (text for _, text in camera.report.remarks)
    assert "decoding is slower than the video" in remark
    assert clock.now_ns() - frames[-1].t_capture_ns < 100 * MS


def test_a_file_whose_disk_hangs_is_an_error() -> None:
    clock = FakeClock()
    reader = SlowReader(clock, lambda k: 0, stop=True)
    camera = camera_of(reader, clock)
    for _ in range(3):
        camera.read(5.0)
    with pytest.raises(CameraError, match=r"slow.mp4: no picture within 0.2 s; advice"):
        camera.read(0.2)
    camera.close()
    reader.go_on.set()


def test_pyav_reads_a_video_without_pictures_as_none(tmp_path: Path) -> None:
    av = pytest.importorskip("av")
    path = tmp_path / "sound.wav"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
    with pytest.raises(CameraError, match="has no video stream; expected a video file"):
        PyAvReader(str(path))
    with pytest.raises(CameraError, match=r"sound.wav: is not a video that OpenCV can read"):
        open_file(path)
