"""`v2a demo` as a user meets it: in a process of its own, with the demo's bundle."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from demo.cli import _text
from demo.episodes import BUNDLE
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.summary_model import RunSummary
from tests.conftest import REPOSITORY
from v2a.bundle import load_bundle, seal
from v2a.errors import ConfigError

pytestmark = pytest.mark.real_time

QUANTILES = ("p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")


def start(folder: Path, *options: str) -> subprocess.Popen[str]:
    """`v2a demo` in its own process group, as a terminal has it."""
    return subprocess.Popen(
        [sys.executable, "-m", "v2a", "demo", *options],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def run(folder: Path, *options: str) -> tuple[int, str, str]:
    process = start(folder, *options)
    out, err = process.communicate(timeout=90)
    return process.returncode, out, err


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the demo's bundle, to be tampered with."""
    return Path(shutil.copytree(BUNDLE, tmp_path / "bundle"))


def refused(folder: Path, *options: str) -> str:
    """The one line of an error; nothing was printed as a result."""
    code, out, err = run(folder, "--episodes", "1", *options)
    assert code != 0
    assert out == ""
    *_, line = err.splitlines()
    assert line.lower().startswith("error: ")
    assert "Traceback" not in err
    return line


@dataclass(frozen=True)
class Finished:
    """What one whole episode left behind."""

    folder: Path
    out: str
    err: str

    @property
    def run(self) -> RunSummary:
        found = {key: self.summary[key] for key in RunSummary.model_fields if key in self.summary}
        return RunSummary.model_validate(found)

    @property
    def summary(self) -> dict[str, Any]:
        return cast("dict[str, Any]", json.loads(self.out))


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("finished")
    options = ("--episodes", "1", "--seed", "3", "--json", "--record", "here", "--report", "page")
    code, out, err = run(folder, *options)
    assert code == 0, err
    return Finished(folder, out, err)


def test_json_is_one_object_with_the_figures(finished: Finished) -> None:
    summary = finished.summary
    assert summary["task"] == "puck"
    assert summary["n"] == 1
    assert summary["success_rate"] in (0.0, 1.0)
    low, high = summary["ci95"]
    assert 0.0 <= low < high <= 1.0
    assert [episode["seed"] for episode in summary["episodes"]] == [3]
    for stage in ("frame_encode", "vae_motion", "vdm_motion", "condition", "denoise", "bus_read"):
        assert all(summary["stages"][stage][quantile] > 0 for quantile in QUANTILES)
    for age in ("condition_age", "chunk_age", "frame_to_motor"):
        assert all(summary["ages"][age][quantile] > 0 for quantile in QUANTILES)
    assert set(summary["missed_ticks"]) == {"late", "bus", "no_chunk"}
    assert {"python", "onnxruntime"} <= set(summary["versions"])
    assert summary["cpu_model"]
    assert summary["safety"][-1]["state"] == "disarmed"
    assert "episode 1/1" in finished.err


def test_the_text_says_how_it_went(finished: Finished) -> None:
    *table, last = _text(finished.run, finished.summary).splitlines()
    assert last.startswith("puck: ")
    assert "of 1 episodes succeeded (95 % interval" in last
    assert any(line.startswith("denoise ") for line in table)


def test_report_and_recording_are_left_behind(finished: Finished) -> None:
    page = (finished.folder / "page" / "index.html").read_text()
    assert "data:image/webp" in page
    assert json.loads((finished.folder / "page" / "demo.json").read_text()) == finished.summary
    recorded = json.loads((finished.folder / "here" / "summary.json").read_text())
    assert recorded["ticks"] == finished.summary["ticks"]
    recording = Recording(finished.folder / "here")
    assert recording.extent().messages["/frame"] > 0
    assert json.loads(to_json(recording.summary())) == recorded


def safety_states(run: Path) -> list[str]:
    """Of safety, in the recording so far."""
    try:
        return [change.state for change in Recording(run).safety()]
    except ConfigError:
        return []


def test_ctrl_c_lets_go_and_keeps_the_recording(tmp_path: Path) -> None:
    process = start(tmp_path, "--episodes", "99", "--record", "here")
    deadline = time.monotonic() + 60
    while "armed" not in safety_states(tmp_path / "here"):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    summary = json.loads((tmp_path / "here" / "summary.json").read_text())
    states = [change["state"] for change in summary["safety"]]
    assert "armed" in states
    assert states[-1] == "disarmed"
    assert summary["safety"][-1]["reason"] == "end of the run"


def test_an_unknown_mode_names_the_known_ones(tmp_path: Path) -> None:
    line = refused(tmp_path, "--study", "--mode", "every_3")
    assert "every_3" in line
    assert "every_4" in line


def test_a_mode_without_a_study_is_not_ignored(tmp_path: Path) -> None:
    assert "--study" in refused(tmp_path, "--mode", "every_4")


def test_an_unknown_level_names_the_known_ones(tmp_path: Path) -> None:
    line = refused(tmp_path, "--task", "pucks")
    assert "'puck'" in line
    assert "'rebound'" in line


def test_a_recording_is_never_written_over(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    assert "here" in refused(tmp_path, "--record", "here")


def test_no_bundle_there(tmp_path: Path) -> None:
    line = refused(tmp_path, "--bundle", "nowhere")
    assert "manifest.json: no such file; give the folder of a bundle" in line


def test_a_bundle_that_was_tampered_with(tmp_path: Path, copy: Path) -> None:
    graph = load_bundle(copy).graph_path("denoise")
    data = bytearray(graph.read_bytes())
    data[len(data) // 2] ^= 1
    graph.write_bytes(data)
    line = refused(tmp_path, "--bundle", str(copy))
    assert "denoise.onnx: sha256 is" in line
    assert "the file was changed: copy it again or export the bundle again" in line


def test_a_graph_that_is_not_what_its_manifest_says(tmp_path: Path, copy: Path) -> None:
    manifest = load_bundle(copy).manifest
    wrong = [
        graph.model_copy(
            update={"outputs": [graph.outputs[0].model_copy(update={"shape": [1, 12, 5]})]}
        )
        if graph.name == "denoise"
        else graph
        for graph in manifest.graphs
    ]
    seal(copy, manifest.model_copy(update={"graphs": wrong}))
    line = refused(tmp_path, "--bundle", str(copy))
    assert line.startswith("error: graph denoise: output chunk_rad is float32[1, 12, 5]")
    assert "float32[1, 16, 5]" in line
    assert line.endswith("; export the bundle again")
