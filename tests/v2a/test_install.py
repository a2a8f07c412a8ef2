"""The advice to install an extra: this interpreter, and an editable install stays one."""

from __future__ import annotations

import json
import sys
from importlib import metadata
from pathlib import Path

import pytest

from v2a import install


def test_a_checkout_is_installed_in_place() -> None:
    hint = install.install_hint("vision")
    assert hint.startswith(f"run: {sys.executable} -m pip install -e ")
    assert str(Path(install.__file__).parents[1]) in hint


@pytest.mark.parametrize(
    ("noted", "source"),
    [
        (
            {"url": "file:///srv/a%20b/v2a-1.whl", "archive_info": {}},
            "'/srv/a b/v2a-1.whl[vision]'",
        ),
        ({}, "'v2a[vision]'"),
        (None, "'v2a[vision]'"),
    ],
)
def test_a_wheel_is_named_as_pip_noted_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, noted: object, source: str
) -> None:
    class Distribution:
        def read_text(self, name: str) -> str | None:
            assert name == "direct_url.json"
            return None if noted is None else json.dumps(noted)

    monkeypatch.setattr(install, "__file__", str(tmp_path / "v2a" / "install.py"))
    monkeypatch.setattr(metadata, "distribution", lambda name: Distribution())
    assert install.install_hint("vision") == f"run: {sys.executable} -m pip install {source}"
