"""A whole released policy: one method per stage, on the tensors that golden folders name."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.filters import on_features
from export.layers.sampler import solver_grid
from export.release.action_core import joined
from export.release.config import ReleaseConfig, StreamConfig
from export.release.filters import stream_filter
from export.release.image_encoder import SiglipEncoder
from export.release.layout import Layout
from export.release.slots import Slots
from export.release.trained import Prefix, TrainedPart
from export.release.wan_dit import RotaryTable, WanDit
from export.release.wan_vae import WanVaeEncoder


class Stream(nn.Module):
    """The constants of one video stream: its filter and its rotary table."""

    def __init__(self, stream: StreamConfig, config: ReleaseConfig) -> None:
        super().__init__()
        self.frames = stream.latent_frames
        self.filter = stream_filter(stream.extraction, self.frames, config)
        self.rotary = RotaryTable(stream.token_grid, config.wan.dim // config.wan.num_heads)


class ReleasedPolicy(nn.Module):
    """The frozen video model (`vae`, `dit`) and the trained part. The batch size is 1.

    The image encoder is optional; without it, its tokens are an input. In all stages, videos are
    [B, 3, T, H, W] in -1..1 and latents [B, C, t, h, w]. States are [B, 1, S] and actions
    [B, K, S], where S is `state_dim` and the robot's joints have fixed `slots`.
    """

    def __init__(self, config: ReleaseConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        self.vae = WanVaeEncoder(config.vae.dim, config.wan.in_dim)
        self.dit = WanDit(config.dit, config.wan.in_dim, config.wan.text_dim)
        self.trained = TrainedPart(config, layout)
        self.image_encoder: SiglipEncoder | None = None
        with torch.device("cpu"):  # constants need values even while weights have no storage
            self.raw = Stream(config.raw_stream, config)
            self.motion = Stream(config.motion_stream, config)
            self.slots = Slots(config.agilex_state_indices, config.state_dim)

    def vae_encode(self, video: Tensor) -> Tensor:
        """Encode a stream's video [B, 3, T, H, W] as normalised latents [B, C, t, h, w]."""
        latents: Tensor = self.vae(video)
        return latents

    def vdm_spatial(self, latent: Tensor, text: Tensor) -> Tensor:
        """Map the newest frame's latent and Wan's text [B, L, Dt] to features [B, N, Dd]."""
        return self.features(self.raw, latent, self.dit.text_kv(text))

    def vdm_motion(self, latents: Tensor, text: Tensor) -> Tensor:
        """Map the clip's latents and Wan's text [B, L, Dt] to features [B, N, Dd]."""
        return self.features(self.motion, latents, self.dit.text_kv(text))

    def features(self, stream: Stream, latents: Tensor, text_kv: Tensor) -> Tensor:
        """Map a stream's latents and the text's K/V to features [B, N, Dd]."""
        latents = latents[:, :, -stream.frames :]
        if self.config.filter_place == "latent":
            features = self.dit(stream.filter(latents), stream.rotary(), text_kv)
        else:
            features = on_features(stream.filter, self.dit(latents, stream.rotary(), text_kv))
        tokens: Tensor = features.flatten(1, 3)
        return tokens

    def condition(self, raw_features: Tensor, motion_features: Tensor) -> Tensor:
        """Map both streams' features [B, N, Dd] to condition tokens [B, Nv, D]."""
        return self.trained.video_tokens(raw_features, motion_features)

    def step(
        self,
        timestep: float,
        noisy: Tensor,
        state: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        lang_tokens: Tensor,
        lang_mask: Tensor,
        img_tokens: Tensor,
        video_tokens: Tensor,
    ) -> Tensor:
        """Run the denoiser once without caches: noisy actions [B, K, S] to clean ones [B, K, S].

        The other arguments are those of `TrainedPart`.
        """
        return self.trained.predict(
            noisy, torch.tensor([timestep]), self.trained.adapt_state(state, action_mask),
            action_mask, ctrl_freq, joined(self.trained.language_kv(lang_tokens)),
            self.trained.visual_reads(img_tokens, video_tokens), lang_mask,
        )  # fmt: skip

    def denoise(
        self,
        noise: Tensor,
        state: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        lang_tokens: Tensor,
        lang_mask: Tensor,
        img_tokens: Tensor,
        video_tokens: Tensor,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Run the whole sampler: noise [B, K, S] to actions [B, K, S].

        K/V are computed once for all steps. The other arguments are those of `TrainedPart`.
        """
        return self.trained.sample(
            noise, self.trained.adapt_state(state, action_mask), action_mask, ctrl_freq,
            joined(self.trained.language_kv(lang_tokens)),
            self.trained.visual_reads(img_tokens, video_tokens), lang_mask, prefix,
        )  # fmt: skip

    def solver_grid(self) -> tuple[Tensor, Tensor]:
        """Return the sampler's timesteps [steps] and sigmas [steps + 1], float32."""
        timesteps, sigmas = solver_grid(self.config.denoise_steps)
        return torch.from_numpy(timesteps).float(), torch.from_numpy(sigmas).float()

    def forward(
        self,
        raw_video: Tensor,
        motion_video: Tensor,
        wan_text: Tensor,
        noise: Tensor,
        state: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        lang_tokens: Tensor,
        lang_mask: Tensor,
        img_tokens: Tensor,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Run all stages: videos [B, 3, T, H, W], tokens and noise to actions [B, K, S]."""
        video_tokens = self.condition(
            self.vdm_spatial(self.vae_encode(raw_video), wan_text),
            self.vdm_motion(self.vae_encode(motion_video), wan_text),
        )
        return self.denoise(
            noise, state, action_mask, ctrl_freq, lang_tokens, lang_mask, img_tokens, video_tokens,
            prefix,
        )  # fmt: skip
