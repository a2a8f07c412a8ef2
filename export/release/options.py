"""Judges the options of a released policy's file that no field of `ReleaseConfig` takes.

A training configuration has many options. One that changes what the policy computes must say what
this exporter computes, or the file is refused. The others are ignored, and named in a note.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel

from export.release.config import ReleaseConfig
from v2a.config import load_yaml
from v2a.errors import ConfigError

ConfigT = TypeVar("ConfigT", bound=ReleaseConfig)

OFF: tuple[Any, ...] = (False, None, [], {}, "none")

# Option -> the values that stand for what the exporter computes. An option counts in every section:
# training nests them as it likes (`noise_scheduler`, `model.noise_scheduler`).
# Sources: diffusers 0.27.2, DPMSolverMultistepScheduler; RDT's configs/base.yaml; Wan2.2's
# config.json; the release's configs/video2act_template.yaml.
ACCEPTED: Mapping[str, tuple[Any, ...]] = {
    "prediction_type": ("sample",),
    "beta_schedule": ("squaredcos_cap_v2",),
    "num_train_timesteps": (1000,),
    "clip_sample": (*OFF,),
    "thresholding": (*OFF,),
    "dynamic_thresholding": (*OFF,),
    "trained_betas": (*OFF,),
    "rescale_betas_zero_snr": (*OFF,),
    "algorithm_type": ("dpmsolver++",),
    "solver_order": (2,),
    "solver_type": ("midpoint",),
    "lower_order_final": (True,),
    "euler_at_final": (*OFF,),
    "use_karras_sigmas": (*OFF,),
    "use_lu_lambdas": (*OFF,),
    "timestep_spacing": ("linspace",),
    "steps_offset": (0,),
    "final_sigmas_type": ("zero",),
    "guidance_scale": (*OFF, 1),
    "cfg_scale": (*OFF, 1),
    "train_lora": (*OFF, {"enabled": False}),
    "use_lora": (*OFF,),
    "lora": (*OFF, {"enabled": False}),
    "use_dual_stream_framepack": (True,),
    "wan.patch_size": ([1, 2, 2],),
    "wan.text_len": (512,),
    "wan.eps": (1e-6,),
    "wan.qk_norm": (True,),
    "wan.cross_attn_norm": (True,),
    "wan.window_size": ([-1, -1],),
}

# The training's name of an option -> the field of this file that must have the same value.
ALIASES: Mapping[str, str] = {
    "num_inference_timesteps": "denoise_steps",
    "num_inference_steps": "denoise_steps",
    "feature_extraction_layers": "wan_layers_used",
    "img_history_size": "img_history",
    "action_chunk_size": "action_chunk",
    "control_frequency": "ctrl_freq",
}

# Options that are read in one place only -> that place.
PLACES: Mapping[str, str] = {
    **dict.fromkeys(("filter_type", "freq_low", "freq_high", "prop_motion"), "motion_extraction"),
    **dict.fromkeys(("extraction", "latent_num_frames"), "raw_stream or motion_stream"),
    **dict.fromkeys(
        ("filter_fps", "filter_place", "precision", "denoise_steps", "solver", "wan_layers_used",
         "ctrl_freq", "video_channels", "condition_age_max_s", "img_history", "action_chunk"),
        "the top level",
    ),
}  # fmt: skip

_ANYWHERE = {*(name for name in ACCEPTED if "." not in name), *ALIASES, *PLACES}
_NO_MISTAKES = ("state_token_dim", "num_train_steps")  # real options, near to others
_NEAR, _VERY_NEAR = 0.8, 0.9  # "freq_hihg" has 0.9, "precison" 0.94


def load_policy_file(file: Path, model: type[ConfigT]) -> ConfigT:
    """Read a released policy's file.

    Raises ConfigError, with one line per fault, if it does not fit `model`, or if an option would
    change what the policy computes and the exporter would ignore it.
    """
    config = load_yaml(file, model)
    if faults := list(option_faults(config)):
        raise ConfigError("\n".join(f"{file}: {fault}" for fault in faults))
    return config


def option_faults(config: ReleaseConfig) -> Iterator[str]:
    """Yield a fault for each unread option of `config` that would change the policy's results."""
    for section, model in _sections(config):
        known = {*type(model).model_fields, *_ANYWHERE}
        for key, value in (model.model_extra or {}).items():
            place = "the top level" if section == "" else ""
            yield from _faults(config, f"{section}{key}", value, known, place)


def _sections(config: BaseModel, prefix: str = "") -> Iterator[tuple[str, BaseModel]]:
    yield prefix, config
    for name in type(config).model_fields:
        value = getattr(config, name)
        if isinstance(value, BaseModel):
            yield from _sections(value, f"{prefix}{name}.")


def _faults(
    config: ReleaseConfig, name: str, value: Any, known: set[str], here: str = ""
) -> Iterator[str]:
    """Judge the option `name`, and those inside it. `known` are the options of its section."""
    key = name.rpartition(".")[2]
    accepted = ACCEPTED.get(name, ACCEPTED.get(key))
    field = ALIASES.get(key)
    if accepted is not None:
        if value not in accepted:
            yield (
                f"{name} is {value!r}, but v2a exports only policies with {accepted[0]!r} there; "
                "this variant is not supported"
            )
    elif field is not None:
        if value != (used := getattr(config, field)):
            yield f"{name} is {value!r}, but {field} is {used!r}; give both the same value"
    elif PLACES.get(key, here) != here:
        yield f"{name} is not read there; put {key!r} into {PLACES[key]}"
    elif key not in PLACES and key not in _NO_MISTAKES and (near := _near(key, known)):
        yield f"{name} is an unknown option, did you mean {near!r}?"
    elif isinstance(value, dict):
        for inner, content in value.items():
            yield from _faults(config, f"{name}.{inner}", content, set())


def _near(key: str, known: set[str]) -> str | None:
    """Return the option that `key` misspells. In a section of training, only a close one counts."""
    plain = key.lower().replace("-", "_")
    cutoff = _NEAR if known else _VERY_NEAR
    words = sorted(known or _ANYWHERE)
    return next(iter(difflib.get_close_matches(plain, words, n=1, cutoff=cutoff)), None)
