"""The policy split into stages against the plain model that caches nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.own.config import PolicyConfig
from export.own.policy import Video2ActPolicy
from export.own.rates import GRAPHS, example_inputs, tensor_specs
from export.pipeline.split import chain
from tests.export.conftest import POLICY_FILE, random_policy
from v2a.config import load_yaml
from v2a.errors import ConfigError


def all_tensors(policy: Video2ActPolicy, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    return chain(policy, inputs, GRAPHS)


def _plain(policy: Video2ActPolicy, inputs: dict[str, Tensor]) -> Tensor:
    out: Tensor = policy(
        inputs["clip"], inputs["image"], inputs["lang_tokens"], inputs["position_rad"],
        inputs["command_rad"], inputs["condition_age_s"], inputs["noise"],
    )  # fmt: skip
    return out


@pytest.mark.parametrize("place", ["feature", "latent"])
def test_split_equals_plain(config: PolicyConfig, place: str) -> None:
    placed = config.model_copy(
        update={
            "spatial": config.spatial.model_copy(update={"place": place}),
            "motion": config.motion.model_copy(update={"place": place}),
        }
    )
    policy = random_policy(placed, seed=3).requires_grad_(False)
    inputs = example_inputs(placed, seed=4)
    torch.testing.assert_close(all_tensors(policy, inputs)["chunk_rad"], _plain(policy, inputs))


def test_every_input_moves_the_chunk(policy: Video2ActPolicy) -> None:
    inputs = example_inputs(policy.config)
    chunk = all_tensors(policy, inputs)["chunk_rad"]
    for key, value in inputs.items():
        other = 255 - value if value.dtype == torch.uint8 else value + 0.3
        moved = all_tensors(policy, inputs | {key: other})["chunk_rad"]
        assert (moved - chunk).abs().max() > 1e-5, key


def test_tensors_have_the_shapes_of_the_manifest(policy: Video2ActPolicy) -> None:
    tensors = all_tensors(policy, example_inputs(policy.config))
    for key, spec in tensor_specs(policy.config).items():
        assert list(tensors[key].shape) == spec.shape, key
        assert str(tensors[key].dtype) == f"torch.{spec.dtype}", key


def test_each_graphs_inputs_are_made_before_it(config: PolicyConfig) -> None:
    known = set(example_inputs(config))
    for graph in GRAPHS:
        assert set(graph.inputs) <= known, graph.name
        known |= set(graph.outputs)
    assert known == set(tensor_specs(config))


def test_ages_past_the_maximum_read_as_the_maximum(policy: Video2ActPolicy) -> None:
    inputs = example_inputs(policy.config)
    oldest = policy.config.condition_age_max_s
    chunks = [
        all_tensors(policy, inputs | {"condition_age_s": torch.tensor([age])})["chunk_rad"]
        for age in (oldest / 2, oldest, 5 * oldest)
    ]
    torch.testing.assert_close(chunks[1], chunks[2])
    assert (chunks[0] - chunks[1]).abs().max() > 1e-5


def test_actions_and_joint_targets_are_inverse(policy: Video2ActPolicy) -> None:
    command_rad = torch.randn(3, len(policy.config.joints))
    actions = torch.randn(3, policy.config.chunk, len(policy.config.joints))
    chunk_rad = policy.to_chunk_rad(actions, command_rad)
    torch.testing.assert_close(policy.to_actions(chunk_rad, command_rad), actions)


def test_training_reaches_every_parameter(config: PolicyConfig) -> None:
    policy = random_policy(config, seed=5)
    batch = {key: torch.cat([value] * 2) for key, value in example_inputs(config).items()}
    text_kv = policy.video_dit.text_kv(batch["lang_tokens"])
    latents = policy.video_vae(batch["clip"])
    tokens = policy.condition_tokens(
        policy.vdm_spatial(policy.vae_spatial(batch["newest_frame"]), text_kv),
        policy.vdm_motion(latents, text_kv),
    )
    predicted = policy.denoiser(
        batch["noise"], torch.tensor([10, 900]), batch["lang_tokens"],
        torch.cat(tokens, dim=1), policy.frame_encode(batch["image"]),
        batch["position_rad"], batch["command_rad"], batch["condition_age_s"],
    )  # fmt: skip
    future = policy.video_dit(latents, torch.zeros(2, config.motion.frames), text_kv)
    (predicted.square().sum() + future.square().sum()).backward()
    untouched = [name for name, p in policy.named_parameters() if not _has_gradient(p)]
    assert untouched == []


def _has_gradient(parameter: Tensor) -> bool:
    return parameter.grad is not None and bool(parameter.grad.abs().max() > 0)


@pytest.mark.parametrize(("old", "new", "fault"), [
    ("width: 48", "width: 50", "image.width 50 must be a multiple of"),
    ("frames: 4", "frames: 7", "motion.frames 7 exceeds dit.max_frames 6"),
    ("kernels: [8, 4]", "kernels: [8]", "one entry per layer"),
    ("upper_rad: 2.0", "upper_rad: -2.0", "must be below upper_rad"),
    ("filter: sobel", "filter: sobell", "spatial.filter"),
    ("low_hz: 4.0", "low_hz: 9.5", "low_hz"),
])  # fmt: skip
def test_a_wrong_policy_file_is_named_with_its_fault(
    old: str, new: str, fault: str, tmp_path: Path
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(POLICY_FILE.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=fault):
        load_yaml(file, PolicyConfig)
