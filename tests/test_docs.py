"""The documentation does what it says: every block marked `sh run` is run, the YAML is loaded."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import BaseModel

from runtime.config.robot_yaml import RunConfig
from tests.conftest import REPOSITORY
from v2a.config import load_yaml

PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").rglob("*.md"))]
# A block that speaks of one of these is skipped where it is not there.
NEEDED = ("demo/bundle", "../shared")


def blocks(kind: str) -> dict[str, str]:
    """The fenced blocks of that kind: page and line -> text."""
    found = {}
    for page in PAGES:
        text = page.read_text()
        for match in re.finditer(rf"^```{kind}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            line = text.count("\n", 0, match.start()) + 1
            found[f"{page.name}:{line}"] = match.group(1)
    return found


SCRIPTS = blocks("sh run")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository and what lies beside it, as links: what a block writes stays in here."""
    folder = tmp_path / "checkout"
    folder.mkdir()
    for entry in REPOSITORY.iterdir():
        (folder / entry.name).symlink_to(entry)
    (tmp_path / "shared").symlink_to(REPOSITORY.parent / "shared")
    (tmp_path / "bin").mkdir()
    v2a = tmp_path / "bin" / "v2a"  # this checkout's, whatever else is installed
    v2a.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m v2a "$@"\n')
    v2a.chmod(0o755)
    return folder


@pytest.mark.parametrize("where", SCRIPTS)
def test_every_block_marked_run_runs(where: str, checkout: Path) -> None:
    script = SCRIPTS[where]
    for needed in NEEDED:
        if needed in script and not (REPOSITORY / needed).exists():
            pytest.skip(f"{where}: {needed} is not there")
    path = os.pathsep.join(
        [str(checkout.parent / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
    )
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=checkout,
        env={**os.environ, "PATH": path, "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, f"{where}\n{done.stdout}\n{done.stderr}"


def keys(model: type[BaseModel], above: str = "") -> Iterator[str]:
    """Every key of the model and of the models in it, as dotted paths (a list's as its items')."""
    for name, field in model.model_fields.items():
        inner = getattr(field.annotation, "__args__", (field.annotation,))[0]
        yield f"{above}{name}"
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{above}{name}.")


def paths(value: Any, above: str = "") -> Iterator[str]:
    for name, inner in value.items() if isinstance(value, dict) else ():
        yield f"{above}{name}"
        yield from paths(inner[0] if isinstance(inner, list) else inner, f"{above}{name}.")


def test_the_robot_yaml_of_the_page_is_valid_complete_and_true_about_defaults(
    tmp_path: Path,
) -> None:
    (text,) = (text for where, text in blocks("yaml").items() if where.startswith("robot_yaml.md"))
    file = tmp_path / "robot.yaml"
    file.write_text(text)
    config = load_yaml(file, RunConfig)
    assert set(paths(yaml.safe_load(text))) == set(keys(RunConfig))
    without_defaults = "\n".join(line for line in text.splitlines() if "# default" not in line)
    # A section of which nothing is left is empty: leave it out, too.
    file.write_text(re.sub(r"^\w+:\n(?! )", "", without_defaults + "\n", flags=re.MULTILINE))
    assert load_yaml(file, RunConfig) == config


def test_a_clone_alone_has_every_video_that_a_command_plays() -> None:
    """Only `make` and the export of a released policy may need more than the repository."""
    text = "\n".join([*blocks("sh run").values(), *blocks("sh").values()])
    played = set(re.findall(r"file:(\S+\.mp4)", text))
    assert "demo/clip.mp4" in played
    assert [path for path in played if not (REPOSITORY / path).is_file()] == []


def test_the_clip_is_small_and_as_fast_as_the_demos_policy_wants() -> None:
    cv2 = pytest.importorskip("cv2")
    clip = REPOSITORY / "demo" / "clip.mp4"
    assert clip.stat().st_size < 300_000
    capture = cv2.VideoCapture(str(clip))
    assert capture.get(cv2.CAP_PROP_FPS) == 20.0
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) / 20.0 > 6.0  # the longest command of the docs
    capture.release()
