"""Loads a released policy from its three checkpoints: trained part, video DiT, VAE."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import torch
from torch import Tensor, nn

from export.pipeline.state_dict import Weights
from export.release.config import ReleaseConfig
from export.release.layout import Layout, layout_of
from export.release.policy import ReleasedPolicy
from export.release.weight_files import listed, read_weights
from v2a.errors import ConfigError

UNREAD_TRAINED = ("model.video_cond_pos_embed", "model.video_encoder_pos_embed")
UNREAD_VAE = ("decoder.*", "conv2.*")
"""Weights that no stage reads. A checkpoint may lack them."""

_LARGE = 1 << 20  # elements
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)  # fp8 needs its scales

_FIX = "use the configuration that this checkpoint was trained with"

# Mean and deviation of the 48 latent channels of Wan2.2's VAE. Its checkpoint lacks them
# (Wan-Video/Wan2.2, wan/modules/vae2_2.py).
# fmt: off
WAN22_LATENT_MEAN = (
    -0.2289, -0.0052, -0.1323, -0.2339, -0.2799, 0.0174, 0.1838, 0.1557, -0.1382, 0.0542, 0.2813,
    0.0891, 0.1570, -0.0098, 0.0375, -0.1825, -0.2246, -0.1207, -0.0698, 0.5109, 0.2665, -0.2108,
    -0.2158, 0.2502, -0.2055, -0.0322, 0.1109, 0.1567, -0.0729, 0.0899, -0.2799, -0.1230, -0.0313,
    -0.1649, 0.0117, 0.0723, -0.2839, -0.2083, -0.0520, 0.3748, 0.0152, 0.1957, 0.1433, -0.2944,
    0.3573, -0.0548, -0.1681, -0.0667,
)
WAN22_LATENT_STD = (
    0.4765, 1.0364, 0.4514, 1.1677, 0.5313, 0.4990, 0.4818, 0.5013, 0.8158, 1.0344, 0.5894, 1.0901,
    0.6885, 0.6165, 0.8454, 0.4978, 0.5759, 0.3523, 0.7135, 0.6804, 0.5833, 1.4146, 0.8986, 0.5659,
    0.7069, 0.5338, 0.4889, 0.4917, 0.4069, 0.4999, 0.6866, 0.4093, 0.5709, 0.6065, 0.6415, 0.4944,
    0.5726, 1.2042, 0.5458, 1.6887, 0.3971, 1.0600, 0.3943, 0.5537, 0.5444, 0.4089, 0.7468, 0.7744,
)
# fmt: on


def load_released(config: ReleaseConfig, trained: Path, dit: Path, vae: Path) -> ReleasedPolicy:
    """Load the policy that `config` describes as float32 in evaluation mode.

    Each path is a file or folder as for `read_weights`. Float32 weights stay memory-mapped. Others
    are converted one by one, large ones in temporary files.
    Raises ConfigError, with one line per fault, if keys are missing or unexpected, shapes differ
    from the configuration's, or a weight is not finite.
    """
    weights = read_weights(trained)
    layout = layout_of({key: tuple(value.shape) for key, value in weights.items()})
    _check_compressors(config, layout, trained)
    with torch.device("meta"):  # shapes without storage: the files hold the only copy
        policy = ReleasedPolicy(config, layout)
    _load(policy.trained, weights, trained, UNREAD_TRAINED)
    _load(policy.dit, read_weights(dit), dit, _unread_dit(config))
    _load(policy.vae, _with_statistics(read_weights(vae)), vae, UNREAD_VAE)
    return policy.eval().requires_grad_(False)


def _check_compressors(config: ReleaseConfig, layout: Layout, path: Path) -> None:
    found, expected = layout.compressors, config.compressor not in (None, False)
    if (found is not None) != expected:
        says = "set" if expected else "null"
        has = "a compressor" if found else "none"
        raise ConfigError(f"{path}: has {has}, but 'compressor' is {says}; {_FIX}")
    for name, compressor in zip(("raw_stream", "motion_stream"), found or (), strict=False):
        tokens = math.prod(getattr(config, name).token_grid)
        if tokens % compressor.frames:
            raise ConfigError(
                f"{path}: its compressor reads {compressor.frames} frames, but the {tokens} tokens "
                f"of {name} are no multiple of that; {_FIX}"
            )


def _unread_dit(config: ReleaseConfig) -> tuple[str, ...]:
    """Return patterns of the keys after the last block that is run."""
    later = range(config.wan_layers_used, config.wan.num_layers)
    return ("head.*", *(f"blocks.{block}.*" for block in later))


def _with_statistics(weights: Weights) -> Weights:
    if "_latent_mean" in weights or "_latent_std" in weights:
        return weights
    statistics = {
        "_latent_mean": torch.tensor(WAN22_LATENT_MEAN),
        "_latent_std": torch.tensor(WAN22_LATENT_STD),
    }
    return {**weights, **statistics}


def _load(module: nn.Module, weights: Weights, path: Path, unread: tuple[str, ...]) -> None:
    expected = module.state_dict()
    read = {
        key: value
        for key, value in weights.items()
        if not any(fnmatch(key, pattern) for pattern in unread)
    }
    if faults := list(_key_faults(expected, read)):
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults))
    module.load_state_dict({key: _finite(key, read[key], path) for key in expected}, assign=True)


def _key_faults(expected: Weights, found: Weights) -> Iterator[str]:
    if missing := expected.keys() - found.keys():
        yield f"lacks {listed(missing)}; {_FIX}"
    if unexpected := found.keys() - expected.keys():
        yield f"has unexpected {listed(unexpected)}; {_FIX}"
    both = expected.keys() & found.keys()
    if wrong := {key for key in both if expected[key].shape != found[key].shape}:
        key = min(wrong)
        yield (
            f"shapes differ in {listed(wrong)}; {key} is {list(found[key].shape)}, but the "
            f"configuration gives {list(expected[key].shape)}; {_FIX}"
        )


def _finite(key: str, weight: Tensor, path: Path) -> Tensor:
    if weight.dtype not in _DTYPES:
        raise ConfigError(f"{path}: {key} is {weight.dtype}; give the unquantised checkpoint")
    if not weight.isfinite().all():
        raise ConfigError(f"{path}: {key} holds NaN or infinity; use an earlier checkpoint")
    return weight if weight.dtype == torch.float32 else _widened(weight)


def _widened(weight: Tensor) -> Tensor:
    """Convert to float32. A large weight is mapped to a temporary file, to keep it out of memory.

    The file is freed with the tensor.
    """
    if weight.numel() < _LARGE:
        return weight.float()
    size_bytes = 4 * weight.numel()
    try:
        with tempfile.NamedTemporaryFile() as file:
            # Reserve the space: without room, writing to the mapped file would kill the process.
            os.posix_fallocate(file.fileno(), 0, size_bytes)
            wide = torch.from_file(file.name, shared=True, size=weight.numel(), dtype=torch.float32)
    except OSError as error:
        raise ConfigError(
            f"{tempfile.gettempdir()}: no room for {size_bytes} bytes of a weight in float32 "
            f"({error.strerror}); set TMPDIR to a folder with room for the whole policy"
        ) from error
    return wide.view(weight.shape).copy_(weight)
