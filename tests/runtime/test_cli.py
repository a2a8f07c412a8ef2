"""`v2a run` as a user meets it: a dry run on real files, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.virtual.pty import PtyServer
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from tests.conftest import REPOSITORY
from tests.runtime.conftest import TASK, make_chain, torques
from tests.runtime.control.outside import ROBOT_YAML
from tests.runtime.recording.messages import states_of

pytestmark = pytest.mark.real_time


@pytest.fixture
def folder(filmed: Path) -> Path:
    return filmed


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
    recording = Recording(folder / "here")
    assert recording.header.config.instruction == TASK
    assert json.loads(to_json(recording.summary())) == summary
    first, *_, last = recording.states()
    np.testing.assert_allclose(first.position_rad, [0.3, 0.0], atol=1e-3)
    assert last.command_rad[0] >= 0.3  # the policy says 0, the limit says 0.3


@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_lets_go_and_keeps_the_recording(folder: Path, sign: int, code: int) -> None:
    process = start(folder, "--dry-run")
    recorded = folder / "runs" / "two-1"
    deadline = time.monotonic() + 60
    while not states_of(recorded):
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    process.send_signal(sign)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert "missed:" in out
    summary = json.loads((recorded / "summary.json").read_text())
    assert summary["safety"][-1] == summary["safety"][-1] | {
        "state": "disarmed",
        "reason": "end of the run",
    }
    assert summary["torque_fault"] is None
    assert Recording(recorded).extent().whole


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_hail_of_signals_does_not_get_between_the_motors_and_their_torque_off(
    folder: Path, sign: int
) -> None:
    """An impatient operator, a service manager, an SSH session that breaks off."""
    chain = make_chain()
    chain.servos[1].set_present_rad(0.5)
    pty = PtyServer(chain)
    # A busy test machine loses answers that a wire would not.
    patient = ROBOT_YAML + "control: {serial_faults_max: 125}\n"
    (folder / "robot.yaml").write_text(patient.replace("/dev/not-there", pty.path))
    process = start(folder, "--arm")
    deadline = time.monotonic() + 60
    while torques(chain) != [True, True]:
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    while process.poll() is None:
        process.send_signal(sign)
        time.sleep(0.005)
    pty.close()
    assert process.returncode == 128 + sign, process.communicate()
    assert torques(chain) == [False, False]
    summary = json.loads((folder / "runs" / "two-1" / "summary.json").read_text())
    assert summary["safety"][-1]["reason"] == "end of the run"
    process.communicate()


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
