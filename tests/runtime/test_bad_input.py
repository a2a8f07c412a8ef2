"""Everything that a user can get wrong: one line on stderr that says what to do, and torque off."""

from __future__ import annotations

import json
import os
import re
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnx", reason="the bundle of these tests is written with onnx")
pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.virtual.chain import VirtualChain
from hw_drivers.virtual.pty import PtyServer
from runtime.record import read_lines
from tests.runtime.conftest import make_chain, torques, write_tiny_bundle
from tests.runtime.onnx_files import write_zeros
from tests.runtime.outside import ROBOT_YAML, Simulator
from v2a.bundle import GraphSpec, load_bundle, seal
from v2a.cli import cli

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
    seal(bundle.path, bundle.manifest.model_copy(update={"graphs": graphs}))


def not_a_graph(folder: Path, _patch: pytest.MonkeyPatch) -> None:
    bundle = load_bundle(folder / "bundle")
    bundle.graph_path("observe").write_text("not a graph")
    seal(bundle.path, bundle.manifest)


def port_without_permission(folder: Path, patch: pytest.MonkeyPatch) -> None:
    port = folder / "ttyUSB0"
    port.touch()
    yaml("/dev/not-there", str(port))(folder, patch)
    real = os.open

    def forbidden(path: str, *rest: int) -> int:  # as root, no file mode would do
        if path == str(port):
            raise PermissionError(13, "Permission denied")
        return real(path, *rest)

    patch.setattr(os, "open", forbidden)


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
        manifest('"schema_version": 1', '"schema_version": 7'),
        DRY,
        3,
        "schema version 7, this v2a reads 1; export the bundle again with this v2a",
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
        "robot two has the joints base, wrist; the bundle tiny moves base, tip: name and order",
    ),
    "camera too slow": (
        yaml("fps: 20", "fps: 10"),
        DRY,
        2,
        "camera.fps is 10; the bundle tiny looks at pictures 0.05 s apart: use a camera of at",
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
        (*DRY, "--camera", "rtsp://robot"),
        5,
        "rtsp://robot: unknown kind of camera; a source begins with file:, /dev/video",
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
    "port without permission": (
        port_without_permission,
        ("--seconds", "1"),
        6,
        "ttyUSB0: no permission; add yourself: sudo usermod -aG dialout",
    ),
    "no onnxruntime": (
        without_onnxruntime,
        DRY,
        1,
        "onnxruntime is not installed; run: pip install '.\\[cpu\\]'",
    ),
    "no opencv": (
        without_opencv,
        (*DRY, "--camera", "/dev/video0"),
        1,
        "cv2 is not installed; run: pip install '.\\[vision\\]'",
    ),
    "recording exists": (
        lambda f, _: (f / "old").mkdir(),
        (*DRY, "--record", "old"),
        2,
        "old: can't record there: File exists; name a new folder",
    ),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    write_tiny_bundle(tmp_path / "bundle", write_zeros)
    (tmp_path / "robot.yaml").write_text(ROBOT_YAML)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def run(*options: str) -> Result:
    arguments = ["run", "robot.yaml", "--bundle", "bundle", *options]
    return CliRunner().invoke(cli, arguments, prog_name="v2a")


@pytest.mark.parametrize("case", TABLE)
def test_it_is_one_line_that_says_what_to_do(
    folder: Path, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    spoil, options, code, message = TABLE[case]
    spoil(folder, monkeypatch)
    result = run(*options)
    *_, error = result.stderr.partition("error: ")
    assert re.search(message, error), result.stderr
    assert result.exit_code == code
    assert "Traceback" not in result.stderr
    if case != "nobody sends pictures":  # which shows only once it runs
        assert result.stderr.startswith("error: ")
        assert result.stdout == ""
        assert not (folder / "runs").exists()


# Faults in the middle of a run, on servos behind a pseudo terminal


class Robot:
    """The servos of ROBOT_YAML behind a serial port, with the base where it may be armed."""

    def __init__(self, folder: Path) -> None:
        self.chain: VirtualChain = make_chain()
        self.chain.servos[1].set_present_rad(0.5)
        self.pty = PtyServer(self.chain)
        self._states = folder / "runs" / "two-1" / "states.jsonl"
        text = ROBOT_YAML.replace("/dev/not-there", self.pty.path)
        # Patient where a busy test machine needs it: only what a test injects may go wrong.
        text += "control: {serial_faults_max: 1000}\n"
        (folder / "robot.yaml").write_text(text.replace("timeout_s: 20", "timeout_s: 0.5"))

    def is_running(self) -> bool:
        """Armed, of which the last servo's watchdog is the last act, and recorded."""
        armed = self.chain.servos[2]["bus_watchdog"] != 0
        return armed and self._states.exists() and self._states.stat().st_size > 0


@pytest.fixture
def robot(folder: Path) -> Iterator[Robot]:
    robot = Robot(folder)
    yield robot
    robot.pty.close()


@pytest.fixture
def simulator(folder: Path) -> Iterator[Simulator]:
    simulator = Simulator(folder / "camera.sock")
    yield simulator
    simulator.close()


def once(condition: Callable[[], bool], action: Callable[[], None]) -> threading.Thread:
    """Do `action` in a thread as soon as `condition` holds."""

    def wait() -> None:
        while not condition():
            threading.Event().wait(0.01)
        action()

    thread = threading.Thread(target=wait, daemon=True)
    thread.start()
    return thread


def recording(folder: Path) -> tuple[int, dict[str, object]]:
    """How many states were recorded, and the summary."""
    run_dir = folder / "runs" / "two-1"
    summary: dict[str, object] = json.loads((run_dir / "summary.json").read_text())
    return len(list(read_lines(run_dir / "states.jsonl"))), summary


def test_a_camera_that_stops_in_the_run_lets_go_of_the_arm(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    once(robot.is_running, simulator.close)
    result = run("--arm")
    assert result.exit_code == 5
    *_, error = result.stderr.partition("error: ")
    assert error == ("socket:camera.sock: no picture within 0.5 s; is the simulator running?\n")
    assert torques(robot.chain) == [False, False]
    states, summary = recording(folder)
    assert states > 0
    assert summary["torque_fault"] is None


def test_a_port_that_vanishes_in_the_run_says_that_torque_may_be_on(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    once(robot.is_running, robot.pty.hang_up)
    result = run("--arm")
    assert result.exit_code == 6
    said, _, error = result.stderr.partition("error: ")
    assert error.count("\n") == 1
    assert re.match(r"/dev/pts/\d+: vanished or was closed .+; check the cable", error)
    assert "warning: torque may still be on: base: " in said
    assert "cut the motors' power" in said
    assert recording(folder)[0] > 0


def test_a_servo_that_falls_silent_in_the_run_is_named(
    folder: Path, robot: Robot, simulator: Simulator
) -> None:
    file = folder / "robot.yaml"
    file.write_text(file.read_text().replace("serial_faults_max: 1000", "serial_faults_max: 20"))
    once(robot.is_running, lambda: robot.chain.servos.pop(2) and None)
    result = run("--arm")
    assert result.exit_code == 7
    *_, error = result.stderr.partition("error: ")
    assert re.match("20 bad bus cycles in a row, the last: no answer from tip; check", error)
    assert torques(robot.chain) == [False]
    assert "warning: torque may still be on: tip: servo 2: no answer" in result.stderr


def test_an_arm_out_of_range_is_not_armed(folder: Path, robot: Robot, simulator: Simulator) -> None:
    robot.chain.servos[1].set_present_rad(-0.5)
    result = run("--arm")
    assert result.exit_code == 7
    *_, error = result.stderr.partition("error: ")
    assert re.match(r"can't arm: base is at -0\.5\d+ rad, outside 0\.300\.\.1\.000; move it", error)
    assert torques(robot.chain) == [False, False]


def test_pictures_stamped_by_another_clock_are_refused(folder: Path, robot: Robot) -> None:
    simulator = Simulator(folder / "camera.sock", ahead_ns=10**12)
    result = run("--arm")
    simulator.close()
    assert result.exit_code == 5
    assert re.search(r"error: picture \d+ is stamped .+ s in the future; its sender", result.stderr)
    assert torques(robot.chain) == [False, False]
