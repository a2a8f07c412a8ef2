"""A small sealed bundle to break."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from v2a.bundle import Manifest, seal

MANIFEST = Manifest.model_validate(
    {
        "policy": "reach",
        "description": "reaches for the cube",
        "graphs": [
            {
                "name": "denoise",
                "rate": "denoise",
                "file": "graphs/denoise.onnx",
                "inputs": [
                    {"name": "noise", "dtype": "float32", "shape": [1, 16, 2], "meaning": "noise"}
                ],
                "outputs": [
                    {
                        "name": "chunk_rad",
                        "dtype": "float32",
                        "shape": [1, 16, 2],
                        "meaning": "joint targets",
                        "unit": "rad",
                    }
                ],
            }
        ],
        "action_space": {
            "joints": [
                {"name": name, "lower": -1.5, "upper": 1.5, "velocity_limit": 3.0}
                for name in ("base", "elbow")
            ],
            "chunk_length": 16,
            "step_s": 0.05,
        },
        "cameras": [{"name": "top", "width": 96, "height": 96, "history": 6, "interval_s": 0.05}],
        "instructions": {"reach the cube": {"file": "embeddings/reach.npy"}},
        "condition_age_max_s": 1.0,
        "provenance": {"parity": {"denoise": 1e-6}},
    }
)


@pytest.fixture
def bundle_dir(tmp_path: Path) -> Path:
    """A folder with a sealed bundle of one (meaningless) graph and one instruction."""
    folder = tmp_path / "bundle"
    (folder / "graphs").mkdir(parents=True)
    (folder / "embeddings").mkdir()
    (folder / "graphs/denoise.onnx").write_bytes(b"not read by the bundle")
    np.save(folder / "embeddings/reach.npy", np.ones((1, 4, 8), np.float32))
    seal(folder, MANIFEST)
    return folder
