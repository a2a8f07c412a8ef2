"""`v2a check-golden` on folders of other sizes and options, made by formulas that share no code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file, save_file
from torch import Tensor

from export.release.layout import ADAPTORS, CompressorLayout, Layout
from tests.export.release.conftest import random_inputs, random_policy, state_dicts, tiny_config
from tests.export.release.reference.golden import golden_tensors
from v2a.cli import cli

FILES = ("policy", "wan_dit", "vae_encoder")


def test_the_formulas_give_the_released_tensors(
    golden_folder: Path, golden: dict[str, Tensor]
) -> None:
    config = json.loads((golden_folder / "config.json").read_text())
    states = {name: load_file(golden_folder / f"{name}.safetensors") for name in FILES}
    made = golden_tensors(config, states, golden)
    assert made.keys() == {key for key in golden if not key.startswith("in.")}
    for key, tensor in made.items():
        largest = float(golden[key].abs().max())
        # Float32's rounding of the release, which is in the golden tensors.
        limit = 2e-5 * max(1.0, largest) if key == "sched.sigmas" else 1e-5 * max(1.0, largest)
        torch.testing.assert_close(tensor, golden[key], atol=limit, rtol=0, msg=key)


def compressor(frames: int, tokens: int, temporal: bool, depth: int = 2) -> CompressorLayout:
    return CompressorLayout(
        dim=12, depth=depth, heads=3, frames=frames, tokens=tokens, time_embeds=frames,
        temporal=temporal,
    )  # fmt: skip


WAN = {"dim": 36, "in_dim": 5, "ffn_dim": 20, "text_dim": 7, "freq_dim": 10, "num_heads": 3}
LOWPASS = {"filter_type": "lowpass", "freq_high": 3.5, "prop_motion": 0.5}
BANDPASS = {"filter_type": "bandpass", "freq_low": 2.0, "freq_high": 7.0, "prop_motion": 0.25}


def streams(
    raw: tuple[int, tuple[int, int], str | None], motion: tuple[int, tuple[int, int], str | None]
) -> dict[str, dict[str, object]]:
    names = ("num_frames", "video_size", "extraction")
    return {
        "raw_stream": dict(zip(names, raw, strict=True)),
        "motion_stream": dict(zip(names, motion, strict=True)),
    }


EVERY_STAGE = ("vae.", "vdm.", "cond.", "dit.", "out.", "sched.")
VIDEO = ("vdm.", "cond.")
FILTERS = ("filter.",)
Variant = tuple[Layout, dict[str, Any], tuple[str, ...]]

VARIANTS: dict[str, Variant] = {
    # Odd numbers throughout: 7 frames (of which the VAE reads 5), 3 x 5 latents, 3 core blocks.
    "other sizes, compressor over time, scharr and moft": (
        Layout(ADAPTORS, (compressor(1, 3, False), compressor(2, 4, True))),
        {
            **streams((1, (32, 48), "scharr"), (7, (48, 80), "moft")),
            "wan": {**WAN, "num_layers": 3},
            "core": {"hidden_size": 24, "depth": 3, "num_heads": 3},
            "vae": {"dim": 6},
            "compressor": {"depth": 2},
            "motion_extraction": BANDPASS,
            "action_chunk": 5,
            "state_dim": 9,
            "img_history": 2,
            "num_cameras": 1,
            "ctrl_freq": 30,
            "denoise_steps": 3,
            "filter_fps": 10,
        },
        (*EVERY_STAGE, *FILTERS),
    ),
    "compressor frame by frame, laplace and fft+sobel on features": (
        Layout(ADAPTORS, (compressor(1, 2, False), compressor(3, 2, False, depth=1))),
        {
            **streams((1, (64, 64), "laplace"), (9, (64, 96), "fft+sobel")),
            "compressor": {"depth": 2},
            "motion_extraction": BANDPASS,
            "filter_place": "feature",
        },
        VIDEO,
    ),
    "lowpass, sobel over 5 frames, linear adaptors": (
        Layout({**ADAPTORS, "video": 0, "motion": 0, "lang": 1, "img": 3}),
        {
            **streams((5, (32, 64), "sobel"), (17, (32, 32), "fft")),
            "motion_extraction": LOWPASS,
            "filter_fps": 8,
        },
        VIDEO,
    ),
    "moft and scharr on features, no filter before": (
        Layout(ADAPTORS),
        {
            **streams((1, (96, 64), "scharr"), (13, (64, 64), "moft")),
            "motion_extraction": {"prop_motion": 0.3},
            "filter_place": "feature",
        },
        ("vdm.",),
    ),
    "no filter, the newest of the latents": (
        Layout(ADAPTORS, (compressor(1, 2, True, depth=0), compressor(1, 3, True))),
        {
            "raw_stream": {"num_frames": 1, "video_size": [32, 32]},
            "motion_stream": {"num_frames": 17, "latent_num_frames": 3, "video_size": [64, 32]},
            "compressor": {"depth": 0},
        },
        VIDEO,
    ),
}


def write_folder(folder: Path, variant: Variant) -> set[str]:
    """A golden folder with random weights; the tensors in it that are no inputs."""
    layout, changes, kinds = variant
    config = tiny_config(**changes)
    states = state_dicts(random_policy(config, layout))
    for key in ("_latent_mean", "_latent_std"):
        states.vae[key] = 0.5 + torch.rand(states.vae[key].shape)
    by_file = dict(zip(FILES, (states.trained, states.dit, states.vae), strict=True))
    inputs = {f"in.{key}": value for key, value in random_inputs(config).items()}
    del inputs["in.lang_mask"]  # a golden folder only tells of it
    options = config.model_dump(mode="json")
    made = golden_tensors(options, by_file, inputs)
    for name, state in by_file.items():
        save_file(state, folder / f"{name}.safetensors")
    # What feeds a stage stays, whatever is compared: the stages before it need their own tensors.
    kept = {key: made[key] for key in made if key.startswith((*kinds, "vae."))}
    save_file({**inputs, **kept}, folder / "tensors.safetensors")
    (folder / "config.json").write_text(json.dumps(options))
    return set(kept)


@pytest.mark.timeout(300)  # one export for each stage and filter
@pytest.mark.parametrize("name", VARIANTS)
def test_check_golden_passes_a_folder_it_has_never_seen(name: str, tmp_path: Path) -> None:
    compared = write_folder(tmp_path, VARIANTS[name])
    result = CliRunner().invoke(cli, ["check-golden", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)["comparisons"]
    assert {(c["tensor"], c["engine"]) for c in found} == {
        (key, engine) for key in compared for engine in ("torch", "onnx")
    }
    tensors = load_file(tmp_path / "tensors.safetensors")
    for one in found:
        largest = float(tensors[one["tensor"]].abs().max())
        assert one["max_abs_error"] <= 2e-5 * max(1.0, largest), one
