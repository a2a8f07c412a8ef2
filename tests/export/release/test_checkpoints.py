"""Every layout in which released checkpoints come, and what is said of broken ones."""

from __future__ import annotations

import io
import json
import random
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor

from export.release.checkpoints import (
    WAN22_LATENT_MEAN,
    WAN22_LATENT_STD,
    load_released,
)
from export.release.config import ReleaseConfig
from export.release.layout import ADAPTORS, CompressorLayout, Layout
from export.release.policy import ReleasedPolicy
from export.release.weight_files import read_weights
from tests.export.release.conftest import (
    StateDicts,
    random_inputs,
    random_policy,
    state_dicts,
    tiny_config,
)
from v2a.config import load_yaml
from v2a.errors import ConfigError

CONFIG = tiny_config()
FIX = "use the configuration that this checkpoint was trained with"


@pytest.fixture
def policy() -> ReleasedPolicy:
    return random_policy(CONFIG)


@pytest.fixture
def saved(policy: ReleasedPolicy) -> StateDicts:
    return state_dicts(policy)


def one_file(weights: dict[str, Tensor], folder: Path) -> Path:
    save_file(weights, folder / "policy.safetensors")
    return folder / "policy.safetensors"


def final_folder(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "pytorch_model.bin")
    return folder


def deepspeed_folder(weights: dict[str, Tensor], folder: Path) -> Path:
    (folder / "pytorch_model").mkdir()
    torch.save({"module": weights}, folder / "pytorch_model" / "mp_rank_00_model_states.pt")
    return folder


def ema_folder(weights: dict[str, Tensor], folder: Path) -> Path:
    deepspeed_folder({"stale": torch.zeros(1)}, folder)
    (folder / "ema").mkdir()
    return final_folder(weights, folder / "ema")


def sharded_folder(weights: dict[str, Tensor], folder: Path) -> Path:
    shard_of = {key: f"model-{i % 3}.safetensors" for i, key in enumerate(weights)}
    for name in set(shard_of.values()):
        save_file({key: weights[key] for key in weights if shard_of[key] == name}, folder / name)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shard_of}))
    (folder / "other.safetensors").write_text("not in the index")
    return folder


def before_torch_1_6(weights: dict[str, Tensor], folder: Path) -> Path:
    torch.save(weights, folder / "old.pth", _use_new_zipfile_serialization=False)
    return folder / "old.pth"


LAYOUTS = [one_file, final_folder, deepspeed_folder, ema_folder, sharded_folder, before_torch_1_6]
Write = Callable[[dict[str, Tensor], Path], Path]


class Files:
    """The three checkpoints of a policy in a folder; the tests break one of them."""

    def __init__(self, saved: StateDicts, folder: Path) -> None:
        self.trained = folder / "policy.safetensors"
        self.dit = folder / "dit.safetensors"
        self.vae = folder / "Wan2.2_VAE.pth"
        save_file(saved.trained, self.trained)
        save_file(saved.dit, self.dit)
        torch.save(saved.vae, self.vae)

    def load(self, config: ReleaseConfig = CONFIG) -> ReleasedPolicy:
        return load_released(config, self.trained, self.dit, self.vae)

    def fault(self, config: ReleaseConfig = CONFIG) -> str:
        with pytest.raises(ConfigError) as fault:
            self.load(config)
        return str(fault.value)


@pytest.fixture
def files(saved: StateDicts, tmp_path: Path) -> Files:
    return Files(saved, tmp_path)


def actions(policy: ReleasedPolicy) -> Tensor:
    out: Tensor = policy(**random_inputs(policy.config))
    return out


@pytest.mark.parametrize("write", LAYOUTS)
def test_every_layout_restores_the_policy(
    write: Write, policy: ReleasedPolicy, saved: StateDicts, files: Files, tmp_path: Path
) -> None:
    folder = tmp_path / "checkpoint"
    folder.mkdir()
    files.trained = write(saved.trained, folder)
    loaded = files.load()
    expected = policy.state_dict()
    assert all(torch.equal(weight, expected[key]) for key, weight in loaded.state_dict().items())
    # Not equal to the last bit: weights in a file are aligned differently in memory.
    torch.testing.assert_close(actions(loaded), actions(policy), atol=1e-6, rtol=0)
    assert not loaded.training
    assert not any(p.requires_grad for p in loaded.parameters())


def test_half_precision_becomes_float32(files: Files, saved: StateDicts) -> None:
    save_file({key: value.bfloat16() for key, value in saved.dit.items()}, files.dit)
    dit = files.load().dit
    assert {p.dtype for p in dit.parameters()} == {torch.float32}
    assert torch.equal(
        dit.get_parameter("blocks.0.modulation"), saved.dit["blocks.0.modulation"].bfloat16()
    )


def test_a_large_half_precision_weight_is_converted_into_a_file(
    files: Files, saved: StateDicts, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is larger than the memory is read all the same, whatever its type."""
    monkeypatch.setattr("export.release.checkpoints._LARGE", 1)
    save_file({key: value.bfloat16() for key, value in saved.dit.items()}, files.dit)
    weight = files.load().dit.state_dict()["blocks.0.ffn.0.weight"]
    assert torch.equal(weight, saved.dit["blocks.0.ffn.0.weight"].bfloat16().float())
    assert weight.untyped_storage().filename is not None


def test_wans_own_vae_brings_no_statistics(tmp_path: Path) -> None:
    config = tiny_config(wan=CONFIG.wan.model_copy(update={"in_dim": 48}).model_dump())
    saved = state_dicts(random_policy(config))
    saved.vae = {key: value for key, value in saved.vae.items() if not key.startswith("_")}
    vae = Files(saved, tmp_path).load(config).vae
    assert vae._latent_mean.tolist() == pytest.approx(WAN22_LATENT_MEAN)
    assert vae._latent_std.tolist() == pytest.approx(WAN22_LATENT_STD)


def test_statistics_of_another_size_are_refused(files: Files, saved: StateDicts) -> None:
    torch.save({k: v for k, v in saved.vae.items() if not k.startswith("_")}, files.vae)
    assert "_latent_mean is [48], but the configuration gives [4]" in files.fault()


def test_all_key_faults_are_listed_with_their_count(files: Files, saved: StateDicts) -> None:
    weights = saved.trained
    weights["model.blocks.0.norm1.wieght"] = weights.pop("model.blocks.0.norm1.weight")
    for key in [key for key in weights if key.startswith("model.blocks.1.")]:
        weights[f"wan_transformer.{key}"] = weights.pop(key)
    save_file(weights, files.trained)
    missing, unexpected = files.fault().splitlines()
    count = sum(key.startswith("wan_transformer.") for key in weights) + 1
    assert f"lacks {count} keys: model.blocks.0.norm1.weight, model.blocks.1." in missing
    assert f"has unexpected {count} keys: model.blocks.0.norm1.wieght, wan_" in unexpected
    for line in (missing, unexpected):
        assert line.count(", ") == 10  # ten keys, then dots
        assert line.endswith(FIX)


def test_the_wrong_configuration_is_one_line(files: Files) -> None:
    config = tiny_config(core={"hidden_size": 32, "depth": 2, "num_heads": 2})
    (line,) = files.fault(config).splitlines()
    assert "shapes differ in " in line
    assert "the configuration gives [" in line
    assert line.endswith(FIX)


def test_a_compressor_that_the_configuration_denies(files: Files) -> None:
    config = tiny_config(compressor={"depth": 1})
    assert "has none, but 'compressor' is set" in files.fault(config)
    one = CompressorLayout(8, depth=0, heads=1, frames=1, tokens=2, time_embeds=1, temporal=False)
    with_one = random_policy(CONFIG, Layout(ADAPTORS, (one, one)))
    save_file(with_one.trained.state_dict(), files.trained)
    assert "has a compressor, but 'compressor' is null" in files.fault()


def test_a_compressor_whose_frames_are_not_the_streams(files: Files) -> None:
    one, four = (
        CompressorLayout(8, 1, 1, frames, tokens=2, time_embeds=3, temporal=False)
        for frames in (1, 4)
    )
    policy = random_policy(CONFIG, Layout(ADAPTORS, (one, four)))
    save_file(policy.trained.state_dict(), files.trained)
    fault = files.fault(tiny_config(compressor={"depth": 1}))
    assert (
        "its compressor reads 4 frames, but the 6 tokens of motion_stream are no multiple" in fault
    )


def test_latents_of_another_rank(files: Files) -> None:
    one = CompressorLayout(8, depth=0, heads=1, frames=1, tokens=2, time_embeds=1, temporal=False)
    weights = random_policy(CONFIG, Layout(ADAPTORS, (one, one))).trained.state_dict()
    weights["video_token_compressor.latents"] = torch.ones(2, 8)
    save_file(weights, files.trained)
    fault = files.fault(tiny_config(compressor={"depth": 0}))
    assert "shapes differ in " in fault
    assert "video_token_compressor.latents" in fault


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_weight_that_is_no_number(files: Files, saved: StateDicts, value: float) -> None:
    saved.dit["blocks.1.ffn.0.bias"][3] = value
    save_file(saved.dit, files.dit)
    assert f"{files.dit}: blocks.1.ffn.0.bias holds NaN or infinity" in files.fault()


def test_a_quantised_weight_is_refused(files: Files, saved: StateDicts) -> None:
    key = "blocks.1.ffn.0.bias"
    save_file({**saved.dit, key: saved.dit[key].to(torch.int8)}, files.dit)
    assert f"{key} is torch.int8; give the unquantised checkpoint" in files.fault()


@pytest.mark.parametrize("part", ["dit", "vae"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_file_that_was_cut_off(files: Files, part: str, share: float) -> None:
    file: Path = getattr(files, part)
    content = file.read_bytes()
    file.write_bytes(content[: int(share * len(content))])
    (line,) = files.fault().splitlines()
    assert str(file) in line
    assert line.endswith("copy it again")


@given(seed=st.integers(0, 2**32 - 1), old=st.booleans())
def test_a_damaged_pickle_raises_nothing_else(seed: int, old: bool) -> None:
    """torch does: IndexError, KeyError, struct.error, UnicodeDecodeError."""
    whole = io.BytesIO()
    torch.save({"x": torch.ones(2, 2)}, whole, _use_new_zipfile_serialization=not old)
    draw, content = random.Random(seed), bytearray(whole.getvalue())
    for _ in range(draw.randint(1, 4)):
        content[draw.randrange(len(content))] = draw.randrange(256)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "policy.bin"
        file.write_bytes(content[: draw.randint(0, 2 * len(content))])
        found, refusal = {}, ""
        try:
            found = dict(read_weights(file))
        except ConfigError as error:
            refusal = str(error)
        assert len(refusal.splitlines()) == (1 if refusal else 0)
        assert refusal.startswith(f"{file}: ") or all(isinstance(w, Tensor) for w in found.values())


def test_a_pointer_in_place_of_the_file(tmp_path: Path) -> None:
    """What git leaves where large files were not fetched."""
    for name in ("policy.bin", "policy.safetensors"):
        (tmp_path / name).write_text("version https://git-lfs.github.com/spec/v1\nsize 10\n")
        with pytest.raises(ConfigError, match=f"{name}: .*copy it again"):
            read_weights(tmp_path / name)


def test_code_in_a_pickle_is_not_run(files: Files, tmp_path: Path) -> None:
    torch.save({"module": CONFIG}, files.vae)
    assert f"{files.vae}: damaged, or holds other things than tensors; save only" in files.fault()


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ([torch.ones(1)], "holds a list; expected a state_dict"),
        ({"step": 7, "conv1.weight": torch.ones(1)}, "not a tensor in 1 key: step"),
        ({0: torch.ones(1)}, "has unexpected 1 key: 0; "),
    ],
)
def test_a_file_with_other_things(files: Files, content: object, text: str) -> None:
    torch.save(content, files.vae)
    assert text in files.fault()


def test_what_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file or folder"):
        read_weights(tmp_path / "absent")
    with pytest.raises(ConfigError, match=r"holds no checkpoint; expected pytorch_model\.bin, "):
        read_weights(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors"}}')
    with pytest.raises(ConfigError, match="names missing shards: model-1"):
        read_weights(tmp_path)
    index.write_text("{}")
    with pytest.raises(ConfigError, match="not an index of shards"):
        read_weights(index)


def test_the_same_key_in_two_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        save_file({"x": torch.zeros(1)}, tmp_path / f"{name}.safetensors")
    with pytest.raises(ConfigError, match="1 key: x also in another shard"):
        read_weights(tmp_path)


def test_golden_files_hold_every_key_that_is_read(golden_folder: Path) -> None:
    """And none that the loaders do not know: they are strict."""
    config = load_yaml(golden_folder / "config.json", ReleaseConfig)
    names = ("policy", "wan_dit", "vae_encoder")
    files = [golden_folder / f"{name}.safetensors" for name in names]
    policy = load_released(config, *files)
    for part, file in zip((policy.trained, policy.dit, policy.vae), files, strict=True):
        stored = read_weights(file)
        assert part.state_dict().keys() <= stored.keys()
        assert all(torch.equal(value, stored[key]) for key, value in part.state_dict().items())
