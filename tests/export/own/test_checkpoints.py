"""Checkpoints that do not fit are refused with every fault listed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from export.own.checkpoints import load_checkpoint
from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from tests.export.conftest import INSTRUCTION
from v2a.errors import ConfigError


@pytest.fixture
def content(checkpoint_file: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = torch.load(checkpoint_file, weights_only=True)
    return loaded


def _fault_of(content: object, config: PolicyConfig, folder: Path) -> str:
    file = folder / "changed.pt"
    torch.save(content, file)
    with pytest.raises(ConfigError) as fault:
        load_checkpoint(file, config)
    return str(fault.value)


def test_a_checkpoint_restores_the_policy(
    checkpoint_file: Path, config: PolicyConfig, policy: Video2ActPolicy
) -> None:
    checkpoint = load_checkpoint(checkpoint_file, config)
    restored = checkpoint.policy.state_dict()
    assert all(torch.equal(restored[key], value) for key, value in policy.state_dict().items())
    assert list(checkpoint.instructions) == [INSTRUCTION]
    assert not checkpoint.policy.training


def test_all_wrong_weights_are_listed(
    content: dict[str, Any], config: PolicyConfig, tmp_path: Path
) -> None:
    weights = content["policy"]
    weights["core.out.bais"] = weights.pop("core.out.bias")
    weights["action_scale"] = torch.ones(9, 2)
    lines = _fault_of(content, config, tmp_path).splitlines()
    assert len(lines) == 3
    assert "missing: core.out.bias;" in lines[0]
    assert "unexpected: core.out.bais;" in lines[1]
    assert "action_scale is [9, 2], but the policy file gives [4, 2]" in lines[2]


def test_instructions_must_fit_the_policy_file(
    content: dict[str, Any], config: PolicyConfig, tmp_path: Path
) -> None:
    content["instructions"]["go"] = torch.zeros(3, 8)
    assert "instruction 'go' is torch.float32 [3, 8]" in _fault_of(content, config, tmp_path)
    content["instructions"] = {}
    assert "has no instruction" in _fault_of(content, config, tmp_path)


def test_other_files_are_refused(
    content: dict[str, Any], config: PolicyConfig, tmp_path: Path
) -> None:
    assert "found ['policy']" in _fault_of({"policy": {}}, config, tmp_path)
    assert "found list" in _fault_of([1], config, tmp_path)
    assert "tensors only" in _fault_of({"policy": config}, config, tmp_path)
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(ConfigError, match="tensors only"):
        load_checkpoint(tmp_path / "text.pt", config)
    with pytest.raises(ConfigError, match="no such file"):
        load_checkpoint(tmp_path / "absent.pt", config)


@pytest.mark.parametrize("damaged", [b"\x80\x02Q.", b"h\x05.", b"\x80\x02}q\x00(X\x01\x00", b""])
def test_a_damaged_pickle_is_one_line(config: PolicyConfig, tmp_path: Path, damaged: bytes) -> None:
    (tmp_path / "bad.pt").write_bytes(damaged)
    with pytest.raises(ConfigError, match=r"bad\.pt: not a checkpoint of tensors only"):
        load_checkpoint(tmp_path / "bad.pt", config)


@pytest.mark.parametrize("start", [b"\0\0\0\x20ftypisom", b"<html>", b"PK\x03\x04"])
def test_another_kind_of_file_is_refused_in_words_of_our_own(
    config: PolicyConfig, tmp_path: Path, start: bytes
) -> None:
    """Torch's error advises to load the file without `weights_only`, which runs its code."""
    (tmp_path / "clip.mp4").write_bytes(start + bytes(100))
    with pytest.raises(ConfigError) as fault:
        load_checkpoint(tmp_path / "clip.mp4", config)
    assert str(fault.value).endswith(
        "clip.mp4: not a checkpoint of tensors only; give one that torch.save wrote, or copy it "
        "again"
    )
