"""`v2a run` with cameras that are too slow, broken or remarkable: exit code and what is said."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from runtime.recording.reader import Recording
from tests.runtime.control.outside import run_command

pytestmark = pytest.mark.real_time


def film(folder: Path, hz: float, seconds: float) -> str:
    """A video of noise at that rate."""
    path = str(folder / "clip.avi")
    writer = cv2.VideoWriter(path, cv2.VideoWriter.fourcc(*"MJPG"), hz, (32, 24))
    for number in range(round(hz * seconds)):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        writer.write(noise)
    writer.release()
    return f"file:{path}"


def test_a_run_whose_camera_is_far_too_slow_ends_with_the_cameras_exit_code(folder: Path) -> None:
    result = run_command("--dry-run", "--camera", film(folder, 5.0, 4.0))
    assert result.exit_code == 5
    *_, error = result.stderr.partition("error: ")
    assert "clip.avi delivers 5.0 pictures a second, camera.fps asks for 20" in error
    assert "no condition, so the robot does not move" in error


def test_what_the_camera_is_stands_in_summary_and_recording(folder: Path) -> None:
    (folder / "pictures").mkdir()
    for number in range(60):
        noise = np.random.default_rng(number).integers(0, 256, (24, 32, 3), np.uint8)
        cv2.imwrite(str(folder / "pictures" / f"{number}.png"), noise)
    result = run_command("--dry-run", "--camera", f"file:{folder}/pictures", "--record", "taken")
    assert result.exit_code == 0
    facts = json.loads((folder / "taken" / "summary.json").read_text())["camera"]
    assert facts["source"] == f"{folder}/pictures"
    assert facts["size"] == "32x24"
    assert facts["pace"] == "camera.fps, 20 Hz"
    recorded = Recording(folder / "taken").summary()
    assert recorded is not None
    assert recorded.camera == facts
