"""SigLIP, the release's image encoder, as `transformers` saves it (extra `[siglip]`)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn

from export.models.layers import pixels_to_unit
from export.release.config import ReleaseConfig
from v2a.errors import ConfigError


class SiglipEncoder(nn.Module):
    """Frames uint8 [1, cameras, H, W, 3], RGB -> patch tokens [1, cameras * patches, width].

    The size of the frames is the encoder's: the release pads each picture to a square and scales
    it. Its mean and deviation are 0.5, which `pixels_to_unit` is.
    """

    def __init__(self, folder: Path, config: ReleaseConfig) -> None:
        super().__init__()
        from transformers import SiglipVisionModel  # here: only who has the encoder needs it

        if not (folder / "config.json").is_file():
            raise ConfigError(f"{folder}: no SigLIP model; give a folder with its config.json")
        self.vision = SiglipVisionModel.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True
        )
        found = self.vision.config
        self.size = int(found.image_size)
        self.cameras = config.num_cameras
        patches = (self.size // found.patch_size) ** 2
        if (patches, found.hidden_size) != (config.patches_per_image, config.img_token_dim):
            raise ConfigError(
                f"{folder}: gives {patches} tokens of {found.hidden_size}, the policy reads "
                f"{config.patches_per_image} of {config.img_token_dim}; use its own encoder"
            )
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        pixels = pixels_to_unit(image).flatten(0, 1).permute(0, 3, 1, 2)
        tokens: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return tokens.flatten(0, 1).unsqueeze(0)
