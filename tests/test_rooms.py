"""What a robot must never need: the training side's packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROBOT_ROOMS = ("deploy", "hw_drivers", "runtime", "v2a")

IMPORT_ALL_OF = """
import importlib, pkgutil, sys

class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("mujoco", "onnx", "torch"):
            raise AssertionError(f"{name} is imported, and a robot has none")

sys.meta_path.insert(0, Refuse())
room = importlib.import_module(sys.argv[1])
print(room.__name__)
for module in pkgutil.walk_packages(room.__path__, room.__name__ + "."):
    if not module.name.endswith("__main__"):
        print(importlib.import_module(module.name).__name__)
"""


@pytest.mark.parametrize("room", ROBOT_ROOMS)
def test_every_module_of_the_robots_rooms_imports_without_torch(room: str) -> None:
    root = Path(__file__).parent.parent
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL_OF, room], cwd=root, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    imported = set(done.stdout.split())
    files = {
        ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        for file in (root / room).rglob("*.py")
    }
    assert imported == {name for name in files if not name.endswith("__main__")}


def test_the_check_does_refuse_torch(tmp_path: Path) -> None:
    (tmp_path / "guilty.py").write_text("import torch\n")
    script = IMPORT_ALL_OF.replace("room.__path__", "[]")
    done = subprocess.run(
        [sys.executable, "-c", script, "guilty"], cwd=tmp_path, capture_output=True, text=True
    )
    assert "torch is imported, and a robot has none" in done.stderr
