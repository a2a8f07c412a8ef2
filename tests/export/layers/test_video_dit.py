"""The video DiT's rotary embedding, patches and per-frame timesteps against plain references."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from export.layers.config import DitConfig
from export.layers.video_dit import VideoDit, rotary_table, rotate

CONFIG = DitConfig(dim=24, blocks=2, heads=2, ffn=32, patch=(1, 2, 3), freq_dim=16, max_frames=6)
CHANNELS, GRID, TEXT_DIM = 5, (3, 2), 8


@pytest.fixture
def dit() -> VideoDit:
    torch.manual_seed(0)
    dit = VideoDit(CONFIG, CHANNELS, TEXT_DIM, GRID)
    nn.init.normal_(dit.head.head.weight)
    return dit.requires_grad_(False)


def _latents(frames: int) -> Tensor:
    return torch.randn(2, CHANNELS, frames, GRID[0] * 2, GRID[1] * 3)


def _complex_rotary(x: Tensor, frames: int, rows: int, columns: int) -> Tensor:
    """Wan's own form: neighbouring pairs as complex numbers, times unit numbers of t, h and w."""
    head_dim = x.shape[-1]
    side = 2 * (head_dim // 6)
    turned = torch.view_as_complex(x.double().unflatten(-1, (-1, 2)))
    for i, (t, h, w) in enumerate(torch.cartesian_prod(
        torch.arange(frames), torch.arange(rows), torch.arange(columns)
    ).tolist()):  # fmt: skip
        angles = [
            position * 10_000.0 ** (-2 * k / share)
            for position, share in ((t, head_dim - 2 * side), (h, side), (w, side))
            for k in range(share // 2)
        ]
        angle = torch.tensor(angles, dtype=torch.float64)
        turned[:, :, i] *= torch.polar(torch.ones_like(angle), angle)
    return torch.view_as_real(turned).flatten(-2).float()


@pytest.mark.parametrize("head_dim", [12, 16, 24, 128])
def test_rotary_equals_complex_multiplication(head_dim: int) -> None:
    angles = rotary_table(4, 3, 5, head_dim).flatten(0, 2)
    x = torch.randn(2, 2, 60, head_dim)
    expected = _complex_rotary(x.clone(), 4, 3, 5)
    torch.testing.assert_close(
        rotate(x, angles.cos().float(), angles.sin().float()), expected, atol=1e-5, rtol=1e-5
    )


class _PatchesOf(nn.Module):
    """Stands in for the head: the latents' own patches, cut out by unfold."""

    def __init__(self, latents: Tensor) -> None:
        super().__init__()
        self.latents = latents

    def forward(self, x: Tensor, embedded_time: Tensor) -> Tensor:
        batch, frames = x.shape[:2]
        flat = self.latents.transpose(1, 2).flatten(0, 1)
        patches = functional.unfold(flat, CONFIG.patch[1:], stride=CONFIG.patch[1:])
        patches = patches.unflatten(1, (CHANNELS, -1)).permute(0, 3, 2, 1)
        out: Tensor = patches.reshape(batch, frames, x.shape[2], -1)
        return out


def test_prediction_puts_every_patch_back_in_its_place(dit: VideoDit) -> None:
    latents = _latents(3)
    dit.head = _PatchesOf(latents)  # type: ignore[assignment]  # a stub of the same call
    text_kv = dit.text_kv(torch.randn(2, 4, TEXT_DIM))
    torch.testing.assert_close(dit(latents, torch.zeros(2, 3), text_kv), latents)


def test_each_frame_has_its_own_timestep(dit: VideoDit) -> None:
    dit.blocks = nn.ModuleList()  # attention would carry a change over to other frames
    latents, text_kv = _latents(3), torch.empty(0)
    clean = dit(latents, torch.zeros(2, 3), text_kv)
    noisy = dit(latents, torch.tensor([[0.0, 0.0, 500.0]] * 2), text_kv)
    torch.testing.assert_close(clean[:, :, :2], noisy[:, :, :2])
    assert (clean[:, :, 2] - noisy[:, :, 2]).abs().max() > 1e-3


def test_features_depend_on_text_and_on_the_order_of_frames(dit: VideoDit) -> None:
    latents = _latents(4)
    text_kv = dit.text_kv(torch.randn(2, 4, TEXT_DIM))
    features = dit.features(latents, text_kv)
    assert features.shape == (2, 4, *GRID, CONFIG.dim)
    other_text = dit.features(latents, dit.text_kv(torch.randn(2, 4, TEXT_DIM)))
    assert (features - other_text).abs().max() > 1e-3
    backwards = dit.features(latents.flip(2), text_kv).flip(1)
    assert (features - backwards).abs().max() > 1e-3


def test_patches_over_time_are_refused() -> None:
    with pytest.raises(ValueError, match="timesteps are per frame"):
        VideoDit(CONFIG.model_copy(update={"patch": (2, 2, 3)}), CHANNELS, TEXT_DIM, GRID)
