"""The whole policy: one method a stage, and `forward`, the plain model that caches nothing.

Batch B everywhere; images are RGB 0..255, uint8 or float; angles are radians, ages seconds.
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
from export.own.formers import Projector
from export.own.image_encoder import ImageEncoder
from export.own.video_vae import VideoVae


def _default_action_scale(config: PolicyConfig) -> Tensor:
    """Half of what each joint can move until step k: a guess that training replaces."""
    velocity = torch.tensor([joint.velocity_limit_rad_s for joint in config.joints])
    return torch.outer(torch.arange(1, config.chunk + 1) * config.step_s / 2, velocity)


class Video2ActPolicy(nn.Module):
    """System 2 (video condition) and System 1 (action chunk) of one policy.

    `action_scale` [K, J] (radians a unit of network output) belongs to the checkpoint; training
    sets it once from the data.
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
        """Language [B, L, Dl] -> lang_kv, text_kv: K/V for the action core and the video DiT."""
        return self.core.language_kv(lang_tokens), self.video_dit.text_kv(lang_tokens)

    def vae_spatial(self, frames: Tensor) -> Tensor:
        """The newest frame alone [B, 1, H, W, 3] -> latent [B, C, 1, h, w]."""
        latent: Tensor = self.video_vae(frames)
        return latent

    def vae_motion(self, frames: Tensor) -> Tensor:
        """The clip [B, T, H, W, 3], oldest first -> latents [B, C, T, h, w]."""
        latents: Tensor = self.video_vae(frames)
        return latents

    def vdm_spatial(self, latent: Tensor, text_kv: Tensor) -> Tensor:
        """Boundary features [B, 1, rows, columns, Dd] of the newest frame."""
        return self._filtered(latent, text_kv, self.spatial_filter, self.config.spatial.place)

    def vdm_motion(self, latents: Tensor, text_kv: Tensor) -> Tensor:
        """Motion features [B, T, rows, columns, Dd] of the clip."""
        return self._filtered(latents, text_kv, self.motion_filter, self.config.motion.place)

    def _filtered(self, latents: Tensor, text_kv: Tensor, keep: nn.Module, place: Place) -> Tensor:
        if place == "latent":
            return self.video_dit.features(keep(latents), text_kv)
        return on_features(keep, self.video_dit.features(latents, text_kv))

    def condition_tokens(
        self, features_spatial: Tensor, features_motion: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Spatial and motion condition tokens, [B, N, D] each."""
        return self.spatial_former(features_spatial), self.motion_former(features_motion)

    def condition(self, features_spatial: Tensor, features_motion: Tensor) -> tuple[Tensor, Tensor]:
        """Features of both streams -> video_kv (core), register_kv (observer)."""
        tokens = torch.cat(self.condition_tokens(features_spatial, features_motion), dim=1)
        return self.core.visual_kv(tokens), self.observer.register_kv(tokens)

    def frame_encode(self, image: Tensor) -> Tensor:
        """One frame [B, H, W, 3] -> image tokens [B, Ni, D]."""
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
        """What System 1 sees now -> image_kv (image and register tokens), state tokens."""
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
        """Noise [B, K, J] -> joint targets [B, K, J]: all solver steps over cached K/V."""
        visual_kv = torch.cat([image_kv, video_kv], dim=4)
        x, x0 = noise, noise
        for step in self.solver:
            timestep = torch.tensor([step.timestep], device=noise.device)
            before, x0 = x0, self.core(x, timestep, lang_kv, visual_kv, state_tokens)
            x = step.advance(x, x0, before)
        return self.to_chunk_rad(x, command_rad)

    # Training, and the plain model.

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
        """One denoiser call from plain tokens: noisy [B, K, J], timestep [B] -> clean [B, K, J].

        `condition_tokens` [B, 2N, D] are the spatial and then the motion tokens; actions are
        normalised as in `to_actions`.
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
        """The plain model: everything recomputed in every solver step, nothing cached.

        Args:
            frames: condition clip [B, T, H, W, 3], oldest first; its newest is the spatial frame.
            image: the current frame [B, H, W, 3].
            lang_tokens: [B, L, Dl].
            position_rad: measured joints [B, J].
            command_rad: last commanded joints [B, J].
            condition_age_s: [B], age of the newest frame of `frames`.
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

    # Actions are deltas to the current command, normalised per step and joint.

    def to_actions(self, chunk_rad: Tensor, command_rad: Tensor) -> Tensor:
        """Joint targets [B, K, J] -> normalised actions."""
        return (chunk_rad - command_rad[:, None]) / self.action_scale

    def to_chunk_rad(self, actions: Tensor, command_rad: Tensor) -> Tensor:
        """Normalised actions [B, K, J] -> joint targets."""
        return command_rad[:, None] + self.action_scale * actions
