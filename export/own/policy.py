"""This project's own policy: one method per stage, and `forward`, the model without caches.

B is the batch, K the chunk length, J the joints. Images are RGB in 0..255, uint8 or float. Angles
are in rad and ages in s.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.config import Place
from export.layers.filters import motion_filter, on_features, spatial_filter
from export.layers.sampler import solver_steps
from export.layers.video_dit import VideoDit
from export.own.action_dit import ActionDit, Observer
from export.own.config import PolicyConfig
from export.own.image_encoder import ImageEncoder
from export.own.projector import Projector
from export.own.video_vae import VideoVae


def _default_action_scale(config: PolicyConfig) -> Tensor:
    """Return half of each joint's reach until step k, [K, J] rad. Training replaces this guess."""
    velocity = torch.tensor([joint.velocity_limit_rad_s for joint in config.joints])
    return torch.outer(torch.arange(1, config.chunk + 1) * config.step_s / 2, velocity)


class Video2ActPolicy(nn.Module):
    """System 2 (video condition) and System 1 (action chunk) of one policy.

    `action_scale` [K, J] is in rad per unit of network output. Training sets it from the data, and
    the checkpoint contains it.
    """

    action_scale: Tensor

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.config = config
        grid, dim = config.token_grid, config.core.dim
        frame_tokens = grid[0] * grid[1]
        self.video_vae = VideoVae(config.vae)
        self.video_dit = VideoDit(config.dit, config.vae.latent_channels, config.language.dim, grid)
        self.spatial_filter = spatial_filter(config.spatial)
        self.motion_filter = motion_filter(config.motion)
        self.spatial_former = Projector(config.dit.dim, frame_tokens, dim, config.former.tokens)
        self.motion_former = Projector(
            config.dit.dim, config.motion.frames * frame_tokens, dim, config.former.tokens
        )
        self.image_encoder = ImageEncoder(
            config.image_encoder, config.image.height, config.image.width, dim
        )
        self.observer = Observer(config)
        self.core = ActionDit(config.core, len(config.joints), config.chunk, config.language.dim)
        self.register_buffer("action_scale", _default_action_scale(config))
        self.solver = solver_steps(config.sampler.steps)

    # The stages, slowest first.

    def instruction(self, lang_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Project language [B, L, Dl] to lang_kv (action core) and text_kv (video DiT)."""
        return self.core.language_kv(lang_tokens), self.video_dit.text_kv(lang_tokens)

    def vae_spatial(self, frames: Tensor) -> Tensor:
        """Encode the newest frame [B, 1, H, W, 3] alone as a latent [B, C, 1, h, w]."""
        latent: Tensor = self.video_vae(frames)
        return latent

    def vae_motion(self, frames: Tensor) -> Tensor:
        """Encode the clip [B, T, H, W, 3], oldest frame first, as latents [B, C, T, h, w]."""
        latents: Tensor = self.video_vae(frames)
        return latents

    def vdm_spatial(self, latent: Tensor, text_kv: Tensor) -> Tensor:
        """Return the newest frame's boundary features [B, 1, rows, columns, Dd]."""
        return self._filtered(latent, text_kv, self.spatial_filter, self.config.spatial.place)

    def vdm_motion(self, latents: Tensor, text_kv: Tensor) -> Tensor:
        """Return the clip's motion features [B, T, rows, columns, Dd]."""
        return self._filtered(latents, text_kv, self.motion_filter, self.config.motion.place)

    def _filtered(self, latents: Tensor, text_kv: Tensor, keep: nn.Module, place: Place) -> Tensor:
        if place == "latent":
            return self.video_dit.features(keep(latents), text_kv)
        return on_features(keep, self.video_dit.features(latents, text_kv))

    def condition_tokens(
        self, features_spatial: Tensor, features_motion: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Reduce both streams' features to condition tokens, [B, N, D] each."""
        return self.spatial_former(features_spatial), self.motion_former(features_motion)

    def condition(self, features_spatial: Tensor, features_motion: Tensor) -> tuple[Tensor, Tensor]:
        """Project both streams' features to video_kv (core) and register_kv (observer).

        Features are [B, T, rows, columns, Dd], K/V [blocks, 2, B, heads, 2N, hd].
        """
        tokens = torch.cat(self.condition_tokens(features_spatial, features_motion), dim=1)
        return self.core.visual_kv(tokens), self.observer.register_kv(tokens)

    def frame_encode(self, image: Tensor) -> Tensor:
        """Encode one frame [B, H, W, 3] as image tokens [B, Ni, D]."""
        tokens: Tensor = self.image_encoder(image)
        return tokens

    def observe(
        self,
        image_tokens: Tensor,
        position_rad: Tensor,
        command_rad: Tensor,
        condition_age_s: Tensor,
        register_kv: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Observe the current state. Arguments are those of `Observer.forward`.

        Returns image_kv [odd blocks, 2, B, heads, Ni + R, hd] of image and register tokens, and
        state tokens [B, 2, D].
        """
        registers, state_tokens = self.observer(
            image_tokens, position_rad, command_rad, condition_age_s, register_kv
        )
        return self.core.visual_kv(torch.cat([image_tokens, registers], dim=1)), state_tokens

    def denoise(
        self,
        noise: Tensor,
        lang_kv: Tensor,
        video_kv: Tensor,
        image_kv: Tensor,
        state_tokens: Tensor,
        command_rad: Tensor,
    ) -> Tensor:
        """Run all solver steps over cached K/V, from noise [B, K, J] to joint targets [B, K, J]."""
        visual_kv = torch.cat([image_kv, video_kv], dim=4)
        x, x0 = noise, noise
        for step in self.solver:
            timestep = torch.tensor([step.timestep], device=noise.device)
            before, x0 = x0, self.core(x, timestep, lang_kv, visual_kv, state_tokens)
            x = step.advance(x, x0, before)
        return self.to_chunk_rad(x, command_rad)

    # Training, and the model without caches.

    def denoiser(
        self,
        noisy: Tensor,
        timestep: Tensor,
        lang_tokens: Tensor,
        condition_tokens: Tensor,
        image_tokens: Tensor,
        position_rad: Tensor,
        command_rad: Tensor,
        condition_age_s: Tensor,
    ) -> Tensor:
        """Run the denoiser once without caches: noisy [B, K, J], timestep [B] to clean [B, K, J].

        `condition_tokens` [B, 2N, D] are the spatial, then the motion tokens. Actions are
        normalised by `to_actions`.
        """
        registers, state_tokens = self.observer(
            image_tokens, position_rad, command_rad, condition_age_s,
            self.observer.register_kv(condition_tokens),
        )  # fmt: skip
        visual = torch.cat([image_tokens, registers, condition_tokens], dim=1)
        out: Tensor = self.core(
            noisy, timestep, self.core.language_kv(lang_tokens), self.core.visual_kv(visual),
            state_tokens,
        )  # fmt: skip
        return out

    def forward(
        self,
        frames: Tensor,
        image: Tensor,
        lang_tokens: Tensor,
        position_rad: Tensor,
        command_rad: Tensor,
        condition_age_s: Tensor,
        noise: Tensor,
    ) -> Tensor:
        """Run the whole model and recompute everything in every solver step.

        Args:
            frames: the clip [B, T, H, W, 3], oldest first; the newest is the spatial frame.
            image: the current frame [B, H, W, 3].
            lang_tokens: [B, L, Dl].
            position_rad: measured joints [B, J].
            command_rad: last commanded joints [B, J].
            condition_age_s: [B], the age of the clip's newest frame.
            noise: [B, K, J].

        Returns:
            Joint targets [B, K, J].
        """
        x, x0 = noise, noise
        for step in self.solver:
            text_kv = self.video_dit.text_kv(lang_tokens)
            condition_tokens = self.condition_tokens(
                self.vdm_spatial(self.vae_spatial(frames[:, -1:]), text_kv),
                self.vdm_motion(self.vae_motion(frames), text_kv),
            )
            timestep = torch.full((noise.shape[0],), step.timestep, device=noise.device)
            before, x0 = x0, self.denoiser(
                x, timestep, lang_tokens, torch.cat(condition_tokens, dim=1),
                self.frame_encode(image), position_rad, command_rad, condition_age_s,
            )  # fmt: skip
            x = step.advance(x, x0, before)
        return self.to_chunk_rad(x, command_rad)

    # Actions are differences from the current command, normalised per step and joint.

    def to_actions(self, chunk_rad: Tensor, command_rad: Tensor) -> Tensor:
        """Normalise joint targets [B, K, J] to actions, relative to command_rad [B, J]."""
        return (chunk_rad - command_rad[:, None]) / self.action_scale

    def to_chunk_rad(self, actions: Tensor, command_rad: Tensor) -> Tensor:
        """Convert actions [B, K, J] to joint targets, relative to command_rad [B, J]."""
        return command_rad[:, None] + self.action_scale * actions
