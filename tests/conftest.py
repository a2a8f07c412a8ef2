"""Fixtures for every room."""

from __future__ import annotations

from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The reference material beside a checkout: real camera video, golden tensors."""
    path = REPOSITORY.parent / "shared"
    if not path.is_dir():
        pytest.skip("the reference material (../shared) is not beside this checkout")
    return path
