"""The released arithmetic once more, in plain formulas over the three state dicts; float64.

A peer that shares no code with `export`: written from the release (jiayueru/Video2Act, snapshot
19e610a), its VAE group by group with caches, its attention head by head. `test_reference.py` holds
it against the release's own tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.export.release.reference.filters import filtered
from tests.export.release.reference.plain import Tensors
from tests.export.release.reference.trained import Core, grid
from tests.export.release.reference.vae import Vae
from tests.export.release.reference.video_dit import Dit


def golden_tensors(
    config: dict[str, Any], states: Mapping[str, Tensors], inputs: Tensors
) -> Tensors:
    """Everything that a golden folder documents, from its `in.*` and `filter.NAME` for all."""
    vae, dit = Vae(states["vae_encoder"]), Dit(states["wan_dit"], config)
    core = Core(states["policy"], config)
    made: dict[str, Tensor] = {}
    for stream, short in (("raw_stream", "raw"), ("motion_stream", "motion")):
        options = config[stream]
        latent = made[f"vae.{short}_latent"] = vae.encode(inputs[f"in.{short}_video"])
        name, used = options.get("extraction"), options.get("latent_num_frames") or 0
        latent = latent[:, :, -used:]
        if config.get("filter_place", "latent") == "latent":
            features = dit.features(filtered(name, latent, config), inputs["in.wan_text"])
        else:
            maps = dit.features(latent, inputs["in.wan_text"]).permute(3, 0, 1, 2)[None]
            features = filtered(name, maps, config)[0].permute(1, 2, 3, 0)
        made[f"vdm.{short}_features"] = features.flatten(0, 2)[None]
    for name in ("sobel", "scharr", "laplace"):
        made[f"filter.{name}"] = filtered(name, made["vae.raw_latent"], config)
    for name in ("fft", "fft+sobel", "moft"):
        made[f"filter.{name}"] = filtered(name, made["vae.motion_latent"], config)
    both = made["vdm.raw_features"][0], made["vdm.motion_features"][0]
    made["cond.video_tokens"] = core.video_tokens(*both)[None]
    valid = torch.ones(inputs["in.lang_tokens"].shape[1])
    half = valid.clone()
    half[len(half) // 2 :] = 0
    known = {**inputs, **made}
    noise = inputs["in.noise"].double()[0]
    made["dit.step_t500"] = core.step(500.0, noise, known, valid)[None]
    made["out.action"] = core.sampled(known, valid)[None]
    made["out.action_lang_half_masked"] = core.sampled(known, half)[None]
    times, sigmas = grid(config["denoise_steps"])
    made["sched.timesteps"], made["sched.sigmas"] = torch.tensor(times), torch.tensor(sigmas)
    return {key: value.float().contiguous() for key, value in made.items()}
