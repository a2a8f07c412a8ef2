"""An option that would change the policy is obeyed or refused; a misspelt one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from export.release.config import ReleaseConfig, unused_options
from export.release.options import load_policy_file, option_faults
from export.release.policy_file import ReleasedFile
from tests.export.release.conftest import tiny_config
from v2a.errors import ConfigError

REFUSED: tuple[tuple[dict[str, Any], str], ...] = (
    ({"noise_scheduler": {"prediction_type": "epsilon"}},
     "noise_scheduler.prediction_type is 'epsilon', but v2a exports only policies with 'sample'"),
    ({"model": {"noise_scheduler": {"num_train_timesteps": 100}}}, "is 100, but v2a exports"),
    ({"num_train_timesteps": 500}, "num_train_timesteps is 500, but v2a exports only"),
    ({"noise_scheduler": {"num_inference_timesteps": 10}}, "but denoise_steps is 2; give both"),
    ({"noise_scheduler": {"predicton_type": "sample"}}, "did you mean 'prediction_type'?"),
    ({"motion_extraction": {"freq_hihg": 7.0}},
     "motion_extraction.freq_hihg is an unknown option, did you mean 'freq_high'?"),
    ({"motion_extraction": {"filter_fps": 8}}, "put 'filter_fps' into the top level"),
    ({"freq_high": 7.0}, "freq_high is not read there; put 'freq_high' into motion_extraction"),
    ({"filter-fps": 8}, "did you mean 'filter_fps'?"),
    ({"core": {"hidden_size": 16, "depth": 2, "num_heads": 2, "precision": "fp16"}},
     "core.precision is not read there; put 'precision' into the top level"),
    ({"precison": {"dit": "fp16"}}, "did you mean 'precision'?"),
    ({"denoise_step": 10}, "did you mean 'denoise_steps'?"),
    ({"train_lora": {"enabled": True, "rank": 4}}, "train_lora is {'enabled': True, 'rank': 4}"),
    ({"use_dual_stream_framepack": False}, "use_dual_stream_framepack is False"),
    ({"guidance_scale": 3.0}, "guidance_scale is 3.0"),
    ({"checkpoint": {}}, "did you mean 'checkpoints'?"),
)  # fmt: skip

NOTED: tuple[dict[str, Any], ...] = (
    {"noise_scheduler": {"type": "ddpm", "prediction_type": "sample", "num_train_timesteps": 1000,
                         "num_inference_timesteps": 2, "clip_sample": False}},
    {"optimizer": {"params": {"lr": 1e-4, "eps": 1e-8, "name": "adam"}}},
    {"state_token_dim": 128, "model": {"state_token_dim": 128, "lang_adaptor": "mlp2x_gelu"}},
    {"training": {"max_train_steps": 9, "num_train_steps": 9, "precision_level": 1}},
    {"ema": {"power": 0.75}, "dataset": {"tokenizer_max_length": 1024}},
    {"img_history_size": 1, "train_lora": {"enabled": False}},
    {"use_dual_stream_framepack": True, "mixed_precision": "bf16"},
)  # fmt: skip


@pytest.mark.parametrize(("options", "fault"), REFUSED, ids=[fault for _, fault in REFUSED])
def test_an_option_that_changes_the_policy_is_refused(
    tmp_path: Path, options: dict[str, Any], fault: str
) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(tiny_config().model_dump(mode="json") | options))
    with pytest.raises(ConfigError) as refusal:
        load_policy_file(file, ReleasedFile)
    assert fault in str(refusal.value)
    assert str(refusal.value).startswith(f"{file}: ")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize("options", NOTED)
def test_an_option_that_changes_nothing_is_noted(options: dict[str, Any]) -> None:
    config = tiny_config(**options)
    assert list(option_faults(config)) == []
    assert set(unused_options(config)) == set(options)


def test_wans_own_configuration_is_taken() -> None:
    """config.json of Wan2.2-TI2V-5B has these beside the sizes."""
    wan = tiny_config().wan.model_dump() | {
        "_class_name": "WanModel", "_diffusers_version": "0.33.0", "model_type": "ti2v",
        "eps": 1e-06, "out_dim": 48, "text_len": 512,
    }  # fmt: skip
    assert list(option_faults(tiny_config(wan=wan))) == []
    (fault,) = option_faults(tiny_config(wan=wan | {"eps": 1e-5}))
    assert "wan.eps is 1e-05" in fault


def test_another_solver_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(tiny_config().model_dump(mode="json") | {"solver": "ddim"}))
    with pytest.raises(ConfigError, match=r"solver: Input should be 'dpmsolver\+\+"):
        load_policy_file(file, ReleaseConfig)
