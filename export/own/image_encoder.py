"""The fast system's eye: one current frame to a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import pixels_to_unit, position_embedding
from export.own.config import ImageEncoderConfig

STEM_STRIDE = 4
STRIDE = 16


def cell_centres(height: int, width: int) -> Tensor:
    """x, y of every cell's centre in a picture that spans [-1, 1], [height * width, 2]."""
    rows, columns = torch.meshgrid(
        (2 * torch.arange(height) + 1) / height - 1,
        (2 * torch.arange(width) + 1) / width - 1,
        indexing="ij",
    )
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


class ImageEncoder(nn.Module):
    """Image [B, H, W, 3] RGB 0..255 -> [B, (H / 16) * (W / 16) + keypoints, dim] tokens.

    Patch tokens come from the coarsest map. A keypoint token is a spatial softmax over the finest
    map (where it looks, and the mean feature there): it gives positions below one patch.
    """

    grid: Tensor

    def __init__(self, config: ImageEncoderConfig, height: int, width: int, dim: int) -> None:
        super().__init__()
        fine, middle, coarse = config.channels
        self.fine = nn.Sequential(
            nn.Conv2d(3, fine, 8, STEM_STRIDE, 2), nn.SiLU(),
            nn.Conv2d(fine, fine, 3, 1, 1), nn.SiLU(),
        )  # fmt: skip
        self.coarse = nn.Sequential(
            nn.Conv2d(fine, middle, 4, 2, 1), nn.SiLU(),
            nn.Conv2d(middle, coarse, 4, 2, 1), nn.SiLU(),
        )  # fmt: skip
        self.keypoints = nn.Conv2d(fine, config.keypoints, 1)
        self.patch_token = nn.Linear(coarse, dim)
        self.keypoint_token = nn.Linear(fine + 2, dim)
        patches = (height // STRIDE) * (width // STRIDE)
        self.positions = position_embedding(patches + config.keypoints, dim)
        grid = cell_centres(height // STEM_STRIDE, width // STEM_STRIDE)
        self.register_buffer("grid", grid, persistent=False)

    def forward(self, image: Tensor) -> Tensor:
        fine = self.fine(pixels_to_unit(image).permute(0, 3, 1, 2))
        patches = self.patch_token(self.coarse(fine).flatten(2).transpose(1, 2))
        tokens = torch.cat([patches, self.keypoint_token(self.look(fine))], dim=1)
        return tokens + self.positions

    def look(self, fine: Tensor) -> Tensor:
        """Keypoint positions and features [B, keypoints, 2 + channels]."""
        weight = self.keypoints(fine).flatten(2).softmax(-1)
        return torch.cat([weight @ self.grid, weight @ fine.flatten(2).transpose(1, 2)], dim=-1)
