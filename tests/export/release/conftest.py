"""A tiny released policy with random weights, and its three state dicts under released names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor

from export.release.config import ReleaseConfig
from export.release.layout import ADAPTORS, Layout
from export.release.policy import ReleasedPolicy
from export.release.weight_files import read_weights

GOLDEN = Path(__file__).parents[4] / "shared" / "golden" / "release_dual_stream"


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    if not GOLDEN.is_dir():
        pytest.skip("the released policy's golden tensors are not beside this checkout")
    return GOLDEN


@pytest.fixture(scope="session")
def golden(golden_folder: Path) -> dict[str, Tensor]:
    return dict(read_weights(golden_folder / "tensors.safetensors"))


def tiny_config(**changes: object) -> ReleaseConfig:
    options: dict[str, object] = {
        "wan": {
            "dim": 24, "in_dim": 4, "ffn_dim": 32, "text_dim": 8, "freq_dim": 16, "num_heads": 2,
            "num_layers": 3,
        },
        "wan_layers_used": 2,
        "core": {"hidden_size": 16, "depth": 2, "num_heads": 2},
        "vae": {"dim": 4},
        "raw_stream": {"num_frames": 1, "video_size": [32, 64], "extraction": "sobel"},
        "motion_stream": {"num_frames": 9, "video_size": [64, 32], "extraction": "fft"},
        "action_chunk": 4,
        "state_dim": 8,
        "img_history": 1,
        "num_cameras": 2,
        "patches_per_image": 3,
        "img_token_dim": 6,
        "lang_token_dim": 7,
        "max_lang_len": 9,
        "ctrl_freq": 25,
        "denoise_steps": 2,
        "agilex_state_indices": [5, 0, 1],
    }  # fmt: skip
    return ReleaseConfig.model_validate(options | changes)


def random_policy(
    config: ReleaseConfig, layout: Layout | None = None, seed: int = 0
) -> ReleasedPolicy:
    """No parameter is zero or one: that would hide a wrong use of it."""
    torch.manual_seed(seed)
    policy = ReleasedPolicy(config, layout or Layout(ADAPTORS))
    for parameter in policy.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return policy.eval().requires_grad_(False)


@dataclass
class StateDicts:
    """What the release and Wan2.2 save, with the tensors that no stage reads."""

    trained: dict[str, Tensor]
    dit: dict[str, Tensor]
    vae: dict[str, Tensor]


def state_dicts(policy: ReleasedPolicy) -> StateDicts:
    dit = policy.dit.state_dict()
    last = {key.replace("s.1.", "s.2."): w.clone() for key, w in dit.items() if "blocks.1." in key}
    return StateDicts(
        trained={**policy.trained.state_dict(), "model.video_cond_pos_embed": torch.ones(1, 9, 16)},
        dit={**dit, **last, "head.head.weight": torch.ones(16, 24)},
        vae={**policy.vae.state_dict(), "decoder.conv1.weight": torch.ones(3)},
    )


def random_inputs(config: ReleaseConfig, seed: int = 1) -> dict[str, Tensor]:
    """Everything that `ReleasedPolicy.forward` takes, by name."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(1, *shape, generator=generator)

    raw, motion, state = config.raw_stream, config.motion_stream, config.state_dim
    return {
        "raw_video": normal(3, raw.num_frames, *raw.video_size).tanh(),
        "motion_video": normal(3, motion.num_frames, *motion.video_size).tanh(),
        "wan_text": normal(3, config.wan.text_dim),
        "noise": normal(config.action_chunk, state),
        "state": normal(1, state),
        "action_mask": torch.ones(1, 1, state),
        "ctrl_freq": torch.tensor([25.0]),
        "lang_tokens": normal(5, config.lang_token_dim),
        "lang_mask": torch.ones(1, 5),
        "img_tokens": normal(config.image_tokens, config.img_token_dim),
    }
