"""The folder of a run that names none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runtime.cli import _make_folder


def test_runs_that_start_at_once_take_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as starters:
        folders = list(starters.map(_make_folder, ["arm"] * 40))
    assert sorted(map(str, folders)) == sorted(f"runs/arm-{n}" for n in range(1, 41))
