"""`v2a run` as a user meets it: a dry run on real files, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.camera import Frame
from hw_drivers.cameras.datagram import pack_frame
from runtime.record import read_lines
from tests.conftest import REPOSITORY
from tests.runtime.conftest import SIZE, TASK, write_tiny_bundle
from tests.runtime.onnx_files import write_zeros
from v2a.bundle import load_bundle, seal

ROBOT_YAML = """\
robot:
  name: two
  bus: {protocol: dynamixel2, port: /dev/not-there, baud: 1000000}
  joints:
    - {name: base, id: 1, model: xl430-w250, lower_rad: 0.3, upper_rad: 1, velocity_limit_rad_s: 1}
    - {name: tip, id: 2, model: xl430-w250, lower_rad: -1, upper_rad: 1, velocity_limit_rad_s: 1,
       direction: -1, zero_tick: 1900}
camera: {source: "socket:camera.sock", fps: 20, timeout_s: 20}
instruction: push the cube
"""


class Simulator:
    """Sends a picture to `camera.sock` every 50 ms as soon as somebody has opened it."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._send, name="simulator")
        self._thread.start()

    def close(self) -> None:
        self._stopping.set()
        self._thread.join()

    def _send(self) -> None:
        image = np.zeros((SIZE, SIZE, 3), np.uint8)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            seq = 0
            while not self._stopping.wait(0.05):
                seq += 1
                try:
                    frame = Frame(seq, time.monotonic_ns(), 0, image)
                    sender.sendto(pack_frame(frame), str(self._path))
                except OSError:
                    continue  # not open yet, or closed again


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A working folder with robot.yaml, a bundle of real ONNX files, and pictures coming in."""
    write_tiny_bundle(tmp_path / "bundle", write_zeros)
    (tmp_path / "robot.yaml").write_text(ROBOT_YAML)
    simulator = Simulator(tmp_path / "camera.sock")
    yield tmp_path
    simulator.close()


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "v2a", "run", "robot.yaml", "--bundle", "bundle", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def run(folder: Path, *options: str) -> tuple[int, str, str]:
    process = start(folder, *options)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_dry_run_prints_one_json_object_and_records(folder: Path) -> None:
    code, out, err = run(folder, "--dry-run", "--seconds", "2", "--json", "--record", "here")
    assert code == 0, err
    summary = json.loads(out)
    assert (summary["robot"], summary["policy"]) == ("two", "tiny")
    assert summary["ticks"] > 10
    assert summary["stages"]["denoise"]["n"] >= 1
    assert [change["state"] for change in summary["safety"]][:2] == ["disarmed", "hold"]
    assert summary["safety"][-1]["reason"] == "end of the run"
    assert json.loads((folder / "here" / "summary.json").read_text())["ticks"] == summary["ticks"]
    header = json.loads((folder / "here" / "run.json").read_text())
    assert header["config"]["instruction"] == TASK
    first, *_, last = read_lines(folder / "here" / "states.jsonl")
    np.testing.assert_allclose(first["position_rad"], [0.3, 0.0], atol=1e-3)
    assert last["command_rad"][0] >= 0.3  # the policy says 0, the limit says 0.3


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_go_and_keeps_the_recording(folder: Path, sign: int, code: int) -> None:
    process = start(folder, "--dry-run")
    states = folder / "runs" / "two-1" / "states.jsonl"
    deadline = time.monotonic() + 60
    while not (states.exists() and states.stat().st_size > 0):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "missed:" in out
    summary = json.loads((states.parent / "summary.json").read_text())
    assert summary["safety"][-1] == summary["safety"][-1] | {
        "state": "disarmed",
        "reason": "end of the run",
    }
    assert "torque_off_failed" not in summary["counts"]["control"]
    assert list(read_lines(states))


def test_without_a_serial_port_a_real_run_is_one_line_and_exit_code_6(folder: Path) -> None:
    code, out, err = run(folder, "--seconds", "1")
    assert (code, out) == (6, "")
    assert err.startswith("error: /dev/not-there: no such serial port")


def test_a_bundle_whose_graph_is_not_the_manifests_is_exit_code_3(folder: Path) -> None:
    bundle = load_bundle(folder / "bundle")
    wrong = bundle.graph("observe").model_copy(update={"file": "graphs/denoise.onnx"})
    graphs = [wrong if graph.name == "observe" else graph for graph in bundle.manifest.graphs]
    seal(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))
    code, _, err = run(folder, "--dry-run", "--seconds", "1")
    assert code == 3
    assert err.startswith("error: graph observe: manifest names the inputs")


def test_a_video_that_ends_is_the_normal_end_of_a_dry_run(folder: Path) -> None:
    cv2 = pytest.importorskip("cv2", reason="video files need OpenCV")
    codec = cv2.VideoWriter_fourcc(*"MJPG")
    writer = cv2.VideoWriter(str(folder / "short.avi"), codec, 20.0, (32, 24))
    for level in range(20):
        writer.write(np.full((24, 32, 3), level * 10, np.uint8))
    writer.release()
    code, out, err = run(folder, "--dry-run", "--camera", "file:short.avi")
    assert code == 0, err
    assert "ended after 20 frames" in err
    assert "preprocess" in out
    code, _, err = run(folder, "--dry-run", "--camera", "file:missing.avi")
    assert code == 5
