"""What people have instead of one plain file of weights: each is read, or is one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from export.release.checkpoints import _finite
from export.release.image_encoder import _check_processor
from export.release.weight_files import files_of, read_weights
from v2a.errors import ConfigError

WEIGHTS = {"a.weight": torch.ones(2), "b.bias": torch.zeros(3)}


def prefixed(prefix: str) -> dict[str, Tensor]:
    return {f"{prefix}{key}": value for key, value in WEIGHTS.items()}


@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.",
                                    "_orig_mod.module."])  # fmt: skip
def test_a_wrappers_prefix_is_taken_off(tmp_path: Path, prefix: str) -> None:
    torch.save(prefixed(prefix), tmp_path / "policy.pt")
    assert set(read_weights(tmp_path / "policy.pt")) == set(WEIGHTS)


def test_a_prefix_of_some_keys_is_a_name() -> None:
    from export.pipeline.state_dict import without_prefix

    mixed = {"module.a": torch.ones(1), "b": torch.ones(1)}
    assert set(without_prefix(mixed)) == set(mixed)


def test_deepspeeds_own_folder_may_be_named(tmp_path: Path) -> None:
    torch.save({"module": WEIGHTS}, tmp_path / "mp_rank_00_model_states.pt")
    assert set(read_weights(tmp_path)) == set(WEIGHTS)


def zero3(folder: Path) -> str:
    (folder / "pytorch_model").mkdir()
    torch.save({}, folder / "pytorch_model" / "zero_pp_rank_0_mp_rank_00_model_states.pt")
    return "in pieces of DeepSpeed's ZeRO-3; join them with its zero_to_fp32.py"


def folder_of_that_name(folder: Path) -> str:
    (folder / "pytorch_model.bin").mkdir()
    return r"pytorch_model\.bin: is not a file; give the file with the weights"


@pytest.mark.parametrize("make", [zero3, folder_of_that_name])
def test_a_folder_without_whole_weights_is_one_line(
    tmp_path: Path, make: Callable[[Path], str]
) -> None:
    fault = make(tmp_path)
    with pytest.raises(ConfigError, match=fault) as refusal:
        read_weights(tmp_path)
    assert "\n" not in str(refusal.value)


def test_of_two_files_one_is_taken_by_rule(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").write_bytes(b"stale")
    assert [file.name for file in files_of(tmp_path)] == ["pytorch_model.bin"]


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2, torch.int8])
def test_quantised_weights_are_refused_by_name(dtype: torch.dtype) -> None:
    with pytest.raises(ConfigError, match=f"a.weight is {dtype}; give the unquantised checkpoint"):
        _finite("a.weight", torch.ones(2).to(dtype), Path("policy.pt"))


@pytest.mark.parametrize("changed", [{"image_mean": [0.485, 0.456, 0.406]},
                                     {"image_std": [0.2, 0.2, 0.2]}, {"rescale_factor": 1.0},
                                     {"do_normalize": False}])  # fmt: skip
def test_a_processor_that_scales_otherwise_is_refused(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    release = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3, "do_resize": True,
               "do_rescale": True, "rescale_factor": 0.00392156862745098}  # fmt: skip
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps(release))
    _check_processor(tmp_path)
    file.write_text(json.dumps(release | changed))
    (key,) = changed
    with pytest.raises(ConfigError, match=f"{key} is .*, but v2a exports "):
        _check_processor(tmp_path)


def test_a_slot_that_is_no_joint_is_refused() -> None:
    from export.release.bundle import _joints

    config: Any = SimpleNamespace(agilex_state_indices=(0, 30, 33), joints=())
    with pytest.raises(ConfigError, match=r"\[30, 33\] are no joint positions"):
        _joints(config)


@pytest.mark.parametrize("shard", ["../outside.bin", "/etc/outside.bin", "deeper/inside.bin"])
@pytest.mark.parametrize("index", ["model.safetensors.index.json", "pytorch_model.bin.index.json"])
def test_an_index_names_only_files_beside_it(tmp_path: Path, index: str, shard: str) -> None:
    folder = tmp_path / "checkpoint"
    (folder / "deeper").mkdir(parents=True)
    for file in (tmp_path / "outside.bin", folder / "deeper" / "inside.bin"):
        torch.save(WEIGHTS, file)
    (folder / index).write_text(json.dumps({"weight_map": dict.fromkeys(WEIGHTS, shard)}))
    with pytest.raises(ConfigError, match=f"names shards elsewhere: {shard}; give"):
        read_weights(folder)


def test_an_index_may_name_a_link_beside_it(tmp_path: Path) -> None:
    """As the cache of huggingface_hub has them."""
    torch.save(WEIGHTS, tmp_path / "blob")
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "shard.bin").symlink_to(tmp_path / "blob")
    weight_map = dict.fromkeys(WEIGHTS, "shard.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    assert set(read_weights(folder)) == set(WEIGHTS)
