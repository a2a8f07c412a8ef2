"""System 1's image encoder, which maps the current frame to a few tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import pixels_to_unit, position_embedding
from export.own.config import ImageEncoderConfig

STEM_STRIDE = 4
STRIDE = 16


def cell_centres(height: int, width: int) -> Tensor:
    """Return (x, y) of every cell's centre, [height * width, 2], in an image that spans -1..1."""
    rows, columns = torch.meshgrid(
        (2 * torch.arange(height) + 1) / height - 1,
        (2 * torch.arange(width) + 1) / width - 1,
        indexing="ij",
    )
    return torch.stack([columns, rows], dim=-1).flatten(0, 1)


class ImageEncoder(nn.Module):
    """Encodes an image as patch tokens of the coarsest map and keypoint tokens of the finest map.

    A keypoint token is a spatial softmax: the mean position and the mean feature under learned
    weights. Its position is finer than one patch.
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
        """Encode an RGB image in 0..255, uint8 or float [B, H, W, 3], as tokens [B, N, D].

        N is (H / 16) * (W / 16) patches plus the keypoints.
        """
        fine = self.fine(pixels_to_unit(image).permute(0, 3, 1, 2))
        patches = self.patch_token(self.coarse(fine).flatten(2).transpose(1, 2))
        tokens = torch.cat([patches, self.keypoint_token(self.look(fine))], dim=1)
        return tokens + self.positions

    def look(self, fine: Tensor) -> Tensor:
        """Return keypoint positions and features [B, keypoints, 2 + channels].

        `fine` is the finest map [B, channels, H / 4, W / 4].
        """
        weight = self.keypoints(fine).flatten(2).softmax(-1)
        return torch.cat([weight @ self.grid, weight @ fine.flatten(2).transpose(1, 2)], dim=-1)
