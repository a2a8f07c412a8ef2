"""The VAE looks at no later frame, and one frame alone carries no motion."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from export.own.config import VaeConfig
from export.own.video_vae import VaeDecoder, VideoVae

CONFIG = VaeConfig(
    channels=(6, 8), kernels=(8, 4), strides=(4, 2), latent_channels=4, temporal_kernel=3
)


def _clip(frames: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (1, frames, 32, 24, 3), generator=generator, dtype=torch.uint8)


@settings(max_examples=25)
@given(frames=st.integers(1, 7), data=st.data())
def test_a_frame_changes_no_latent_before_it(frames: int, data: st.DataObject) -> None:
    changed = data.draw(st.integers(0, frames - 1))
    torch.manual_seed(0)
    vae = VideoVae(CONFIG)
    clip = _clip(frames, seed=1)
    other = clip.clone()
    other[:, changed] = 255 - other[:, changed]
    with torch.no_grad():
        before, after = vae(clip), vae(other)
    torch.testing.assert_close(before[:, :, :changed], after[:, :, :changed])
    assert (before[:, :, changed] - after[:, :, changed]).abs().max() > 1e-3


def test_one_frame_alone_is_a_clips_first_latent() -> None:
    vae = VideoVae(CONFIG)
    clip = _clip(4, seed=2)
    with torch.no_grad():
        torch.testing.assert_close(vae(clip[:, :1]), vae(clip)[:, :, :1])


def test_decoder_gives_frames_of_the_encoders_size() -> None:
    clip = _clip(3, seed=3)
    latents = VideoVae(CONFIG)(clip)
    assert latents.shape == (1, 4, 3, 4, 3)
    assert VaeDecoder(CONFIG)(latents).shape == (1, 3, 3, 32, 24)
