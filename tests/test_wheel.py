"""The wheel has every file that an installed program opens, and no training checkpoint."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

pytest.importorskip("setuptools", minversion="77", reason="builds the wheel with setuptools >= 77")

ROOMS = ("calibration", "demo", "deploy", "export", "hw_drivers", "runtime", "v2a")
LEFT_OUT = {"demo/policy.pt", "demo/results/curves_seed0.jsonl", "demo/results/curves_seed1.jsonl"}
MAX_BYTES = 7_500_000
BUILD = "from setuptools import build_meta; print(build_meta.build_wheel('out'))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in a copy of the tree as setuptools writes beside the sources."""
    tree = tmp_path_factory.mktemp("tree")
    for room in ROOMS:
        shutil.copytree(
            REPOSITORY / room, tree / room, ignore=shutil.ignore_patterns("__pycache__")
        )
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(REPOSITORY / name, tree)
    done = subprocess.run(
        [sys.executable, "-c", BUILD], cwd=tree, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tree / "out" / done.stdout.splitlines()[-1]


def test_the_wheel_has_every_file_of_the_rooms_but_those_of_training(wheel: Path) -> None:
    tree = wheel.parent.parent
    files = {
        path.relative_to(tree).as_posix()
        for room in ROOMS
        for path in (tree / room).rglob("*")
        if path.is_file()
    }
    packed = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert files - packed == LEFT_OUT
    assert packed <= files
    assert {f"{room}/py.typed" for room in ROOMS} <= packed
    assert wheel.stat().st_size < MAX_BYTES


def test_an_installed_study_says_where_the_checkpoint_is(wheel: Path, tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="the demo needs mujoco")
    site = tmp_path / "site"
    zipfile.ZipFile(wheel).extractall(site)
    done = subprocess.run(
        [sys.executable, "-m", "v2a", "demo", "--study", "--mode", "pytorch"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(site)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert done.stderr.endswith(  # after what matplotlib may say of a HOME that it cannot write
        f"error: {site}/demo/policy.pt: the training checkpoint is not in the installed package; "
        "run this mode in a checkout of the repository\n"
    )
