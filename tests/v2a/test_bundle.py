"""A bundle is verified whole when it is loaded; each fault is one line with what to do."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from v2a.bundle import SCHEMA_VERSION, load_bundle, seal
from v2a.errors import BundleError


def faults_of(folder: Path) -> list[str]:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value).splitlines()


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    file = folder / "manifest.json"
    raw = json.loads(file.read_text())
    change(raw)
    file.write_text(json.dumps(raw))


def test_a_sealed_bundle_loads_and_answers(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    assert bundle.manifest.schema_version == SCHEMA_VERSION
    assert bundle.graph("denoise").outputs[0].unit == "rad"
    assert bundle.graph_path("denoise").read_bytes() == b"not read by the bundle"
    tokens = bundle.instruction_tokens("reach the cube")
    assert tokens.dtype == np.float32
    assert tokens.shape == (1, 4, 8)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="no sha256sum to compare with")
def test_the_hashes_are_those_of_sha256sum(bundle_dir: Path) -> None:
    graph = load_bundle(bundle_dir).graph("denoise")
    printed = subprocess.check_output(["sha256sum", graph.file], cwd=bundle_dir, text=True)
    assert printed.split()[0] == graph.sha256


def test_unknown_graphs_and_instructions_list_the_known_ones(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    with pytest.raises(BundleError, match="no graph 'denoize'; did you mean 'denoise'"):
        bundle.graph("denoize")
    with pytest.raises(BundleError, match="'fold the shirt'; known are: reach the cube"):
        bundle.instruction_tokens("fold the shirt")


def test_every_missing_or_changed_file_is_named(bundle_dir: Path) -> None:
    (bundle_dir / "graphs/denoise.onnx").write_bytes(b"another graph")
    (bundle_dir / "embeddings/reach.npy").unlink()
    changed, missing = faults_of(bundle_dir)
    assert "denoise.onnx: sha256 is " + hashlib.sha256(b"another graph").hexdigest()[:12] in changed
    assert "reach.npy: named in the manifest but missing; copy the whole folder again" in missing


def test_one_flipped_bit_is_found(bundle_dir: Path) -> None:
    file = bundle_dir / "graphs/denoise.onnx"
    content = bytearray(file.read_bytes())
    content[3] ^= 1
    file.write_bytes(content)
    assert len(faults_of(bundle_dir)) == 1


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda m: m.update(schema_version=1), "schema version 1, this v2a reads 2"),
        (lambda m: m.pop("schema_version"), "schema version None, this v2a reads 2"),
        (lambda m: m.update(polcy="x"), "polcy: unknown key, did you mean 'policy'?"),
        (lambda m: m.pop("action_space"), "action_space: this key is missing"),
        (
            lambda m: m["graphs"][0]["inputs"][0].update(shape=[1, 0]),
            "graphs.0.inputs.0.shape.1: Input should be greater than 0 (got 0)",
        ),
        (
            lambda m: m["graphs"][0].update(rate="often"),
            "graphs.0.rate: Input should be 'instruction', 'frame', 'system2', 'observe' or",
        ),
        (
            lambda m: m["graphs"][0].update(file="../outside.onnx"),
            "graphs.0.file: must be a path inside the bundle (got '../outside.onnx')",
        ),
        (
            lambda m: m["instructions"]["reach the cube"].update(file="/etc/hostname"),
            "instructions.reach the cube.file: must be a path inside the bundle",
        ),
        (lambda m: m["graphs"].append(m["graphs"][0]), "graphs with the same name: denoise"),
        (
            lambda m: m["action_space"]["joints"][1].update(lower=2.0),
            "action_space.joints.1: lower 2.0 must be below upper 1.5",
        ),
        (
            lambda m: m["action_space"]["joints"][0].update(lower=float("nan")),
            "action_space.joints.0.lower: Input should be a finite number (got nan)",
        ),
        (
            lambda m: m["action_space"].update(chunk_length=1),
            "action_space.chunk_length: Input should be greater than or equal to 2 (got 1)",
        ),
        (lambda m: m.update(cameras=[]), "cameras: List should have at least 1 item"),
        (lambda m: m["graphs"][0].pop("sha256"), "the manifest says none"),
    ],
)
def test_a_wrong_manifest_is_one_clear_line(
    bundle_dir: Path, change: Callable[[dict[str, Any]], object], expected: str
) -> None:
    edit_manifest(bundle_dir, change)
    (line,) = faults_of(bundle_dir)
    assert expected in line
    assert "export the bundle again" in line


def test_a_folder_without_a_manifest_and_a_cut_off_manifest(bundle_dir: Path) -> None:
    manifest = bundle_dir / "manifest.json"
    manifest.write_text(manifest.read_text()[:100])
    assert "manifest.json: is not JSON" in faults_of(bundle_dir)[0]
    manifest.unlink()
    assert faults_of(bundle_dir)[0].endswith("no such file; give the folder of a bundle")


def test_an_embedding_of_the_wrong_type_is_refused(bundle_dir: Path) -> None:
    manifest = load_bundle(bundle_dir).manifest
    np.save(bundle_dir / "embeddings/reach.npy", np.ones((4, 8), np.float64))
    seal(bundle_dir, manifest)
    with pytest.raises(BundleError, match=r"float64 \[4, 8\], expected float32 \[1, L, D\]"):
        load_bundle(bundle_dir).instruction_tokens("reach the cube")


def test_sealing_an_incomplete_folder_leaves_the_old_manifest(bundle_dir: Path) -> None:
    bundle = load_bundle(bundle_dir)
    before = (bundle_dir / "manifest.json").read_bytes()
    (bundle_dir / "graphs/denoise.onnx").unlink()
    with pytest.raises(BundleError, match=r"denoise\.onnx: named in the manifest but missing"):
        seal(bundle_dir, bundle.manifest)
    assert (bundle_dir / "manifest.json").read_bytes() == before
    assert not list(bundle_dir.glob("*.part"))
