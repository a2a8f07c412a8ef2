"""Each example runs by the command in its docstring, on virtual servos and the demo's bundle."""

from __future__ import annotations

import ast
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.pty import PtyServer
from tests.conftest import REPOSITORY

EXAMPLES = sorted((REPOSITORY / "examples").glob("*.py"))
MAX_LINES = 60


def run(name: str, *arguments: str | Path, folder: Path) -> str:
    """Stdout of the docstring's command, with `arguments` in the place of its own."""
    file = REPOSITORY / "examples" / name
    docstring = ast.get_docstring(ast.parse(file.read_text())) or ""
    command = re.search(rf"^    python examples/{name}(.*)$", docstring, re.MULTILINE)
    assert command is not None
    assert len(command.group(1).split()) == len(arguments)
    done = subprocess.run(
        [sys.executable, file, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr  # without a HOME, onnxruntime warns there
    return done.stdout


def test_an_example_is_read_at_a_glance() -> None:
    lengths = {file.name: len(file.read_text().splitlines()) for file in EXAMPLES}
    assert len(lengths) == 4
    assert max(lengths.values()) <= MAX_LINES, lengths


def test_read_bus(tmp_path: Path) -> None:
    chain = VirtualDynamixelBus(
        VirtualDynamixel(MODELS["xl330-m288"], servo_id) for servo_id in (1, 2, 7)
    )
    chain.servos[2].set_present_rad(0.5)
    chain.servos[7].sense("present_temperature", 61)
    server = PtyServer(chain)
    lines = run("read_bus.py", server.path, folder=tmp_path).splitlines()
    server.close()
    assert [line.split(":")[0] for line in lines] == [f"{k} xl330-m288" for k in (1, 2, 7)]
    assert f"{math.pi + 0.5:.3f} rad" in lines[1]
    assert "61 deg C" in lines[2]


def test_read_bus_without_a_servo_is_one_line(tmp_path: Path) -> None:
    server = PtyServer(VirtualDynamixelBus([]))
    done = subprocess.run(
        [sys.executable, REPOSITORY / "examples" / "read_bus.py", server.path],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    server.close()
    assert done.returncode == 1
    assert done.stderr == f"{server.path}: no servo answers at 1000000 baud\n"


@pytest.mark.real_time
def test_run_a_bundle_and_read_its_recording(tmp_path: Path) -> None:
    shown = run("run_bundle.py", tmp_path / "run", folder=tmp_path)
    assert re.search(r"^denoise +\d", shown, re.MULTILINE)
    assert "control: scheduling" in shown
    read = run("read_recording.py", tmp_path / "run", folder=tmp_path)
    found = re.search(r"^(\d+) chunks, oldest condition (\d+) ms$", read, re.MULTILINE)
    assert found is not None
    assert int(found.group(1)) == read.count("rows of 5 joints") > 0
    assert int(found.group(2)) > 0
    assert f"plain mcap reads the same {found.group(1)} chunks" in read


@pytest.mark.real_time
def test_a_camera_of_ones_own(tmp_path: Path) -> None:
    shown = run("own_camera.py", folder=tmp_path)
    found = re.fullmatch(r"(\d+) pictures; the newest chunk is number (\d+)\n", shown)
    assert found is not None
    assert int(found.group(1)) > int(found.group(2)) > 0
