"""SigLIP, the release's image encoder, loaded with `transformers` (extra `[siglip]`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from export.layers.blocks import pixels_to_unit
from export.release.config import ReleaseConfig
from export.release.weight_files import listed, shards_of, unreadable
from v2a.errors import ConfigError
from v2a.install import install_hint


class SiglipEncoder(nn.Module):
    """Encodes one frame of every camera as patch tokens.

    The caller pads each image to a square and scales it to `size`, as in the release. The
    encoder's mean and deviation are 0.5, so `pixels_to_unit` normalises its input.
    """

    def __init__(self, folder: Path, config: ReleaseConfig) -> None:
        super().__init__()
        self.vision = _vision(folder)
        _check_processor(folder)
        found = self.vision.config
        self.size = int(found.image_size)
        self.cameras = config.num_cameras
        patches = (self.size // found.patch_size) ** 2
        if (patches, found.hidden_size) != (config.patches_per_image, config.img_token_dim):
            raise ConfigError(
                f"{folder}: gives {patches} tokens of {found.hidden_size}, but the policy reads "
                f"{config.patches_per_image} of {config.img_token_dim}; use its own encoder"
            )
        self.eval().requires_grad_(False)

    def forward(self, image: Tensor) -> Tensor:
        """Encode RGB images, uint8 [1, cameras, H, W, 3], as [1, cameras * patches, width]."""
        pixels = pixels_to_unit(image).flatten(0, 1).permute(0, 3, 1, 2)
        tokens: Tensor = self.vision(pixel_values=pixels).last_hidden_state
        return tokens.flatten(0, 1).unsqueeze(0)


def _vision(folder: Path) -> Any:
    """Load the model in `folder` as float32. Raises ConfigError if it is missing or damaged."""
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{folder}: no SigLIP model; give a folder with its config.json")
    try:
        from transformers import SiglipVisionModel  # here, as only this encoder needs it
    except ImportError:
        fix = install_hint("siglip")
        raise ConfigError(f"{folder}: SigLIP needs transformers; {fix}") from None
    for index in folder.glob("*.index.json"):
        shards_of(index)
    try:
        vision, loaded = SiglipVisionModel.from_pretrained(
            folder, attn_implementation="eager", dtype=torch.float32, local_files_only=True,
            output_loading_info=True,
        )  # fmt: skip
    except (OSError, RuntimeError, ValueError, SafetensorError) as error:
        raise unreadable(folder, error) from None
    # transformers would silently use random weights in their place.
    if missing := set(loaded["missing_keys"]):
        raise ConfigError(f"{folder}: lacks {listed(missing)}; copy it again")
    if bad := {key for key, weight in vision.state_dict().items() if not weight.isfinite().all()}:
        raise ConfigError(f"{folder}: NaN or infinity in {listed(bad)}; copy it again")
    return vision


def _check_processor(folder: Path) -> None:
    """Refuse a processor that scales pictures otherwise than `pixels_to_unit` does."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return
    try:
        given = json.loads(file.read_text(encoding="utf-8"))
        wrong = [key for key, value in _PROCESSOR.items() if given.get(key, value) != value]
    except (ValueError, AttributeError) as error:
        raise unreadable(file, error) from None
    if wrong:
        raise ConfigError(
            f"{file}: {wrong[0]} is {given[wrong[0]]}, but v2a exports {_PROCESSOR[wrong[0]]}; use "
            "the encoder of the release, google/siglip-so400m-patch14-384"
        )


_PROCESSOR = {
    "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255,
    "do_normalize": True, "do_rescale": True,
}  # fmt: skip
