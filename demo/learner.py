"""The policy with the parts that only training needs: a decoder and read-outs."""

from __future__ import annotations

from typing import Final

import numpy as np
import torch
from torch import Tensor, nn

from demo.dataset import Episodes
from export.own.image_encoder import cell_centres
from export.own.policy import Video2ActPolicy
from export.own.video_vae import VaeDecoder

READ_OUTS: Final = 7


class Finder(nn.Module):
    """Finds one object on a map by a softmax over cells, each with an offset and more values.

    All cells share their weights, so what is learnt at one place holds everywhere.
    """

    def __init__(self, channels: int, values: int = 0) -> None:
        super().__init__()
        self.cells = nn.Conv2d(channels, 3 + values, 1)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Map [B, C, h, w] to (column, row) in -1..1, [B, 2], and values [B, values]."""
        height, width = maps.shape[-2:]
        heat, offset, values = (
            self.cells(maps).flatten(2).split([1, 2, self.cells.out_channels - 3], 1)
        )
        cells = cell_centres(height, width).to(maps.device)
        weight = heat.softmax(-1)
        place = cells.T + offset / width
        return (weight * place).sum(-1), (weight * values).sum(-1)


class Learner(nn.Module):
    """The policy, its instruction and the heads for the training losses."""

    lang: Tensor

    def __init__(self, policy: Video2ActPolicy, lang: Tensor) -> None:
        super().__init__()
        config = policy.config
        height, width = config.latent_size
        latent, dim, frames = config.vae.latent_channels, config.core.dim, config.motion.frames
        image_tokens = (config.image.height // 16) * (config.image.width // 16)
        image_tokens += config.image_encoder.keypoints
        self.policy = policy
        self.vae_heads = nn.ModuleDict(
            {
                "decoder": VaeDecoder(config.vae),
                "puck": Finder(latent),
                "ring": Finder(latent),
                "joints": nn.Linear(latent * height * width, len(config.joints)),
            }
        )
        self.image_heads = nn.ModuleDict(
            {"reads": nn.Linear(image_tokens * dim, 4 + len(config.joints))}
        )
        self.video_heads = nn.ModuleDict(
            {
                "spatial_map": Finder(config.dit.dim),
                "motion_map": Finder(frames * config.dit.dim, 2),
                "motion": nn.Linear(config.former.tokens * dim, READ_OUTS),
                "spatial": nn.Linear(config.former.tokens * dim, 2),
            }
        )
        self.act_heads = nn.ModuleDict(
            {"registers": nn.Linear(config.core.registers * dim, READ_OUTS)}
        )
        self.register_buffer("lang", lang)

    def part(self, name: str) -> nn.Module:
        """Return a trainable part of the policy or of the heads by name."""
        own = dict(self.named_children())
        return own[name] if name in own else self.policy.get_submodule(name)

    def set_action_scale(self, episodes: Episodes) -> None:
        """Set `action_scale` to the spread of the teacher's moves, but at least 1 mrad."""
        batch = episodes.draw(np.random.default_rng(0), 4000)
        chunk = episodes.take("chunk_rad", batch.episode, batch.now)
        moves = chunk - episodes.take("command_rad", batch.episode, batch.now)[:, None]
        self.policy.action_scale.copy_(moves.std(0).clamp(min=1e-3))

    def latents(self, clip: Tensor) -> Tensor:
        """Encode images [B, T, H, W, 3] as latents [B, C, T, h, w] with the VAE frozen."""
        with torch.no_grad():
            return self.policy.vae_motion(clip)

    def features(self, clip: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """Return spatial and motion features of a clip [B, T, H, W, 3] and its latents.

        Both are filtered: [B, 1, rows, columns, Dd] and [B, T, rows, columns, Dd].
        """
        policy = self.policy
        newest = self.latents(clip[:, -1:])
        text_kv = policy.video_dit.text_kv(self.lang.expand(len(clip), -1, -1))
        return policy.vdm_spatial(newest, text_kv), policy.vdm_motion(latents, text_kv)
