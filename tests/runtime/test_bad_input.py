"""Everything that a user can get wrong: one line on stderr that says what to do, and torque off."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from tests.runtime.control.outside import ROBOT_YAML, run_command
from tests.runtime.onnx_files import write_zeros
from v2a.bundle import SCHEMA_VERSION, GraphSpec, load_bundle, seal

Spoil = Callable[[Path, pytest.MonkeyPatch], object]


def nothing(_folder: Path, _patch: pytest.MonkeyPatch) -> None:
    """The fault is in the options."""


def yaml(old: str, new: str) -> Spoil:
    def spoil(folder: Path, _patch: pytest.MonkeyPatch) -> None:
        assert old in ROBOT_YAML
        (folder / "robot.yaml").write_text(ROBOT_YAML.replace(old, new))

    return spoil


def manifest(old: str, new: str) -> Spoil:
    def spoil(folder: Path, _patch: pytest.MonkeyPatch) -> None:
        file = folder / "bundle" / "manifest.json"
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))

    return spoil


def shape(graph: str, old: list[int], new: list[int]) -> Spoil:
    """Another shape in the manifest and in the file: a bundle that was exported wrongly."""

    def spoil(folder: Path, _patch: pytest.MonkeyPatch) -> None:
        bundle = load_bundle(folder / "bundle")
        dump = json.dumps(bundle.graph(graph).model_dump())
        assert f"{old}" in dump
        changed = GraphSpec.model_validate_json(dump.replace(f"{old}", f"{new}"))
        write_zeros(changed, bundle.graph_path(graph))
        graphs = [changed if g.name == graph else g for g in bundle.manifest.graphs]
        seal(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))

    return spoil


def one_byte_more(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    with (folder / "bundle" / "graphs" / "observe.onnx").open("ab") as file:
        file.write(b"\0")


def graph_of_another(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(folder / "bundle")
    wrong = bundle.graph("observe").model_copy(update={"file": "graphs/denoise.onnx"})
    graphs = [wrong if graph.name == "observe" else graph for graph in bundle.manifest.graphs]
    bundle.graph_path("observe").unlink()
    seal(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))


def not_a_graph(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(folder / "bundle")
    bundle.graph_path("observe").write_text("not a graph")
    seal(bundle.path, bundle.manifest)


def without_onnxruntime(_folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "runtime.engines.ort", raising=False)
    patch.setitem(sys.modules, "onnxruntime", None)


def without_opencv(_folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.delitem(sys.modules, "hw_drivers.cameras.video", raising=False)
    patch.setitem(sys.modules, "cv2", None)


DRY = ("--dry-run", "--seconds", "1")

# what is wrong: (how, options, exit code, what stderr says after "error: ")
TABLE: dict[str, tuple[Spoil, tuple[str, ...], int, str]] = {
    "no yaml": (
        lambda f, _: (f / "robot.yaml").unlink(),
        DRY,
        2,
        "robot.yaml: no such file; check",
    ),
    "yaml syntax": (
        yaml("name: two", "name: [two"),
        DRY,
        2,
        r"robot.yaml:3: expected ',' or ']', but got ':'",
    ),
    "unknown key": (
        yaml("fps: 20", "fsp: 20"),
        DRY,
        2,
        "robot.yaml:8: camera.fsp: unknown key, did you mean 'fps'?",
    ),
    "a limit of NaN": (
        yaml("lower_rad: 0.3", "lower_rad: .nan"),
        DRY,
        2,
        "robot.yaml:5: robot.joints.0.lower_rad: Input should be a finite number",
    ),
    "no speed limit": (
        yaml("velocity_limit_rad_s: 1}", "velocity_limit_rad_s: .inf}"),
        DRY,
        2,
        "velocity_limit_rad_s: Input should be a finite number",
    ),
    "no bundle": (
        nothing,
        (*DRY, "--bundle", "elsewhere"),
        3,
        "elsewhere/manifest.json: no such file; give the folder of a bundle",
    ),
    "changed graph": (one_byte_more, DRY, 3, "observe.onnx: sha256 is .+; the file was changed"),
    "lost graph": (
        lambda f, _: (f / "bundle/graphs/observe.onnx").unlink(),
        DRY,
        3,
        "observe.onnx: named in the manifest but missing; copy the whole folder again",
    ),
    "schema version": (
        manifest(f'"schema_version": {SCHEMA_VERSION}', '"schema_version": 7'),
        DRY,
        3,
        f"schema version 7, this v2a reads {SCHEMA_VERSION}; export the bundle again with this v2a",
    ),
    "manifest is cut off": (
        manifest('"policy"', "\x00"),
        DRY,
        3,
        "manifest.json: is not JSON .+; export the bundle again",
    ),
    "no camera": (
        manifest('"cameras": [', '"cameras": [], "_": ['),
        DRY,
        3,
        "cameras: List should have at least 1 item .+\n.*manifest.json: _: unknown key",
    ),
    "graph file of another": (
        graph_of_another,
        DRY,
        3,
        "graph observe: manifest names the inputs .+; export the bundle again",
    ),
    "not a graph": (
        not_a_graph,
        DRY,
        4,
        "graph observe: ONNX Runtime .+ can't load .+observe.onnx",
    ),
    "chunk of one joint": (
        shape("denoise", [1, 16, 2], [1, 16, 1]),
        DRY,
        3,
        r"graph denoise: input noise is float32\[1, 16, 1\], .+ float32\[1, 16, 2\]; export",
    ),
    "pictures of another size": (
        shape("frame_encode", [1, 8, 8, 3], [1, 9, 8, 3]),
        DRY,
        3,
        r"graph frame_encode: input image is uint8\[1, 9, 8, 3\], .+ uint8\[1, 8, 8, 3\]",
    ),
    "unknown instruction": (
        nothing,
        (*DRY, "--instruction", "push the cub"),
        3,
        "no embedding for the instruction 'push the cub'; did you mean 'push the cube'?",
    ),
    "joints of another robot": (
        yaml("name: tip", "name: wrist"),
        DRY,
        2,
        "robot two has the joints base, wrist; the bundle tiny moves base, tip; give robot.joints",
    ),
    "camera too slow": (
        yaml("fps: 20", "fps: 10"),
        DRY,
        2,
        "camera.fps is 10; the bundle tiny needs a picture every 0.05 s; use a camera of at",
    ),
    "no such video": (
        nothing,
        (*DRY, "--camera", "file:none.mp4"),
        5,
        "none.mp4: no such file; expected a video file",
    ),
    "not a video": (
        nothing,
        (*DRY, "--camera", "file:robot.yaml"),
        5,
        "robot.yaml: is not a video that OpenCV can read; try `ffmpeg -i robot.yaml`",
    ),
    "unknown camera": (
        nothing,
        (*DRY, "--camera", "usb:0"),
        5,
        "usb:0: unknown kind of camera; a source begins with file:, /dev/, device:, gst:",
    ),
    "no camera device": (
        nothing,
        (*DRY, "--camera", "/dev/video97"),
        5,
        r"/dev/video97: no such camera \(found: .+\); plug it in or correct `source`",
    ),
    "nobody sends pictures": (
        yaml("timeout_s: 20", "timeout_s: 0.2"),
        ("--dry-run",),
        5,
        "socket:camera.sock: no picture within 0.2 s; is the simulator running?",
    ),
    "no serial port": (
        nothing,
        ("--seconds", "1"),
        6,
        r"/dev/not-there: no such serial port \(found: .+\); plug it in or correct `port`",
    ),
    "no onnxruntime": (
        without_onnxruntime,
        DRY,
        1,
        "onnxruntime is not installed; run: .* -m pip install .*\\[cpu\\]",
    ),
    "no opencv": (
        without_opencv,
        (*DRY, "--camera", "/dev/video0"),
        1,
        "cv2 is not installed; run: .* -m pip install .*\\[vision\\]",
    ),
    "recording exists": (
        lambda f, _: (f / "old").mkdir(),
        (*DRY, "--record", "old"),
        2,
        "old: can't record there: File exists; name a new folder",
    ),
}


@pytest.mark.parametrize("case", TABLE)
def test_it_is_one_line_that_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    spoil, options, code, message = TABLE[case]
    spoil(folder, monkeypatch)
    result = run_command(*options)
    *_, error = result.stderr.partition("error: ")
    assert re.search(message, error), result.stderr
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    if case != "nobody sends pictures":  # which shows only once it runs
        assert result.stderr.startswith("error: ")
        assert result.stdout == ""
        assert not (folder / "runs").exists()
