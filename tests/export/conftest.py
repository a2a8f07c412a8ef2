"""A tiny policy with random weights, its checkpoint, and the bundle that the command exports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file

from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from v2a.cli import cli
from v2a.config import load_yaml

POLICY_FILE = Path(__file__).with_name("tiny.yaml")
GOLDEN = Path(__file__).parents[3] / "shared" / "golden" / "release_dual_stream"
INSTRUCTION = "stop the puck"


@pytest.fixture(scope="session")
def config() -> PolicyConfig:
    return load_yaml(POLICY_FILE, PolicyConfig)


def random_policy(config: PolicyConfig, seed: int) -> Video2ActPolicy:
    """No parameter is zero: an untrained policy's last layers are, and would hide every error."""
    torch.manual_seed(seed)
    policy = Video2ActPolicy(config)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return policy.eval()


@pytest.fixture(scope="session")
def policy(config: PolicyConfig) -> Video2ActPolicy:
    return random_policy(config, seed=0).requires_grad_(False)


@pytest.fixture(scope="session")
def checkpoint_file(policy: Video2ActPolicy, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("training") / "tiny.pt"
    language = policy.config.language
    tokens = torch.randn(language.tokens, language.dim)
    torch.save({"policy": policy.state_dict(), "instructions": {INSTRUCTION: tokens}}, path)
    return path


@pytest.fixture(scope="session")
def exported(
    checkpoint_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, Any]]:
    """The bundle's folder and what `v2a export --json` printed."""
    out = tmp_path_factory.mktemp("bundles") / "tiny"
    arguments = [str(POLICY_FILE), "--checkpoint", str(checkpoint_file), "-o", str(out), "--json"]
    result = CliRunner().invoke(cli, ["export", *arguments])
    assert result.exit_code == 0, result.output
    return out, json.loads(result.stdout)


@pytest.fixture(scope="session")
def golden() -> dict[str, torch.Tensor]:
    file = GOLDEN / "tensors.safetensors"
    if not file.is_file():
        pytest.skip("the released policy's golden tensors are not beside this checkout")
    return load_file(file)
