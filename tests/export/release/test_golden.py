"""The released policy's golden tensors, and a check that fails when it should."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from export.layers.blocks import RmsNorm
from export.release.action_core import ActionCore, VarianceNorm
from export.release.golden import Golden, compare, load_golden
from export.release.policy import ReleasedPolicy
from export.release.stages import language_masks
from v2a.cli import cli
from v2a.errors import ConfigError

FLOAT32_ROUNDING = 5e-6  # of a tensor's largest value; what the check lets pass is far more


def check(folder: Path, *options: str) -> Result:
    return CliRunner().invoke(cli, ["check-golden", str(folder), *options])


@pytest.mark.timeout(300)  # fourteen exports: a minute of CPU
def test_every_golden_tensor_is_reproduced_by_pytorch_and_onnx(golden_folder: Path) -> None:
    result = check(golden_folder, "--json")
    assert result.exit_code == 0, result.output
    comparisons = json.loads(result.stdout)["comparisons"]
    tensors = load_file(golden_folder / "tensors.safetensors")
    wanted = {key for key in tensors if not key.startswith("in.")}
    assert {(c["tensor"], c["engine"]) for c in comparisons} == {
        (key, engine) for key in wanted for engine in ("torch", "onnx")
    }
    for found in comparisons:
        largest = float(tensors[found["tensor"]].abs().max())
        # The release cumulates the sampler's 1000 factors in float32, which moves sigma by 7e-6.
        rounding = 2e-5 if found["tensor"] == "sched.sigmas" else FLOAT32_ROUNDING
        assert found["max_abs_error"] <= rounding * largest, found


@pytest.fixture
def released(golden_folder: Path) -> Golden:
    return load_golden(golden_folder)


def torch_chain(policy: ReleasedPolicy, tensors: dict[str, Tensor]) -> Tensor:
    """From pictures to actions, no golden tensor in between."""
    tensors = tensors | language_masks(tensors)
    names = ("raw_video", "motion_video", "wan_text", "noise", "state", "action_mask", "ctrl_freq",
             "lang_tokens", "lang_mask", "img_tokens")  # fmt: skip
    out: Tensor = policy(*(tensors[f"in.{name}"] for name in names))
    return out


def test_the_whole_chain_gives_the_released_actions(released: Golden) -> None:
    actions = torch_chain(released.policy, released.tensors)
    torch.testing.assert_close(actions, released.tensors["out.action"], atol=5e-6, rtol=0)


def with_plain_norms(policy: ReleasedPolicy) -> None:
    for module in list(policy.trained.modules()):
        for name, norm in list(module.named_children()):
            if isinstance(norm, VarianceNorm):
                plain = RmsNorm(len(norm.weight))
                plain.weight = norm.weight
                setattr(module, name, plain)


def with_erf_gelu(policy: ReleasedPolicy) -> None:
    for module in policy.modules():
        if isinstance(module, nn.GELU):
            module.approximate = "none"


def with_positions_on_video(policy: ReleasedPolicy) -> None:
    core: ActionCore = policy.trained.model
    plain = core.video_kv
    core.video_kv = lambda tokens: plain(tokens + 0.1)  # type: ignore[method-assign]


@pytest.mark.parametrize("change", [with_plain_norms, with_erf_gelu, with_positions_on_video])
def test_each_trap_of_the_release_shows_in_the_actions(
    released: Golden, change: Callable[[ReleasedPolicy], None]
) -> None:
    """What an exporter would get wrong by using a library of today moves the result."""
    change(released.policy)
    actions = torch_chain(released.policy, released.tensors)
    assert (actions - released.tensors["out.action"]).abs().max() > 1e-4


def test_the_mask_is_added_not_applied(golden: dict[str, Tensor]) -> None:
    masked, plain = golden["out.action_lang_half_masked"], golden["out.action"]
    assert not compare("out.action", "torch", masked, plain).passed


@pytest.fixture
def changed_folder(golden_folder: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "golden"
    shutil.copytree(golden_folder, folder, copy_function=shutil.copyfile)
    folder.chmod(0o755)
    return folder


def keep_tensors(folder: Path, tensors: dict[str, Tensor]) -> None:
    save_file(tensors, folder / "tensors.safetensors")


def test_a_wrong_tensor_and_an_unknown_one_fail(changed_folder: Path) -> None:
    tensors = load_file(changed_folder / "tensors.safetensors")
    few = {key: tensors[key] for key in ("in.lang_tokens", "vae.raw_latent", "filter.sobel")}
    few["filter.sobel"] = few["filter.sobel"] + 0.01
    few["filter.prewitt"] = few["vae.raw_latent"].clone()
    keep_tensors(changed_folder, few)
    result = check(changed_folder)
    assert result.exit_code == 1
    lines = {tuple(line.split()[:2]): line for line in result.stdout.splitlines()}
    assert len(lines) == 6
    for tensor, text in (
        ("filter.sobel", "1.0e-02"),
        ("filter.prewitt", "unknown"),
        ("vae.raw_latent", "needs in.raw_video"),
    ):
        for engine in ("torch", "onnx"):
            line = lines[tensor, engine]
            assert text in line
            assert line.endswith("FAIL")
    assert "6 of 6 comparisons FAIL" in result.stderr


def test_a_shape_or_a_nan_is_a_failure() -> None:
    assert (
        compare("x", "torch", torch.ones(2), torch.ones(1, 2)).fault == "shape [2], expected [1, 2]"
    )
    nan = compare("x", "onnx", torch.tensor([torch.nan]), torch.ones(1))
    assert (nan.passed, nan.fault) == (False, "not finite")


def test_inputs_that_do_not_fit_the_configuration(changed_folder: Path) -> None:
    tensors = load_file(changed_folder / "tensors.safetensors")
    tensors["in.noise"] = tensors["in.noise"][:, :8].contiguous()
    keep_tensors(changed_folder, tensors)
    with pytest.raises(
        ConfigError, match=r"in.noise is \[1, 8, 128\], but config.json gives \[1, 16,"
    ):
        load_golden(changed_folder)


def test_a_golden_tensor_that_is_no_number(changed_folder: Path) -> None:
    tensors = load_file(changed_folder / "tensors.safetensors")
    tensors["out.action"][0, 0, 0] = torch.inf  # else every error would be within its limit
    keep_tensors(changed_folder, tensors)
    with pytest.raises(ConfigError, match=r"out\.action holds NaN or infinity"):
        load_golden(changed_folder)


def test_an_option_that_no_code_reads_is_named(changed_folder: Path) -> None:
    config = json.loads((changed_folder / "config.json").read_text())
    config["motion_stream"]["latent_source"] = "cache"
    (changed_folder / "config.json").write_text(json.dumps(config))
    assert load_golden(changed_folder).unused_options == ["motion_stream.latent_source"]


def test_a_folder_without_results_is_refused(changed_folder: Path) -> None:
    keep_tensors(changed_folder, {"in.noise": torch.zeros(1, 16, 128)})
    with pytest.raises(ConfigError, match="no tensor to compare"):
        load_golden(changed_folder)


def test_slots_give_the_released_state_mask(released: Golden) -> None:
    slots, tensors = released.policy.slots, released.tensors
    joints = slots.to_joints(tensors["in.state"])
    state, mask = slots.to_state(joints)
    assert torch.equal(state, tensors["in.state"])
    assert torch.equal(mask, tensors["in.action_mask"])


def test_one_forward_of_the_vae_equals_the_cut_clip(released: Golden) -> None:
    """Frame 1 alone, then groups of 4: later frames change no earlier latent."""
    video = released.tensors["in.motion_video"]
    whole = released.policy.vae_encode(video)
    for frames, latents in ((1, 1), (5, 2), (8, 2), (9, 3)):
        part = released.policy.vae_encode(video[:, :, :frames])
        torch.testing.assert_close(part, whole[:, :, :latents], atol=5e-6, rtol=0)
