"""What the release trained and saves as the policy: adaptors, compressors and the action core.

The video model around it is frozen and lies in checkpoints of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from export.layers.sampler import solver_steps
from export.release.action_core import ActionCore, KeyValue, joined
from export.release.compressor import TokenCompressor
from export.release.config import ReleaseConfig
from export.release.layout import Layout


def adaptor(layers: int, inputs: int, outputs: int) -> nn.Module:
    """`layers` linear layers with GELU (tanh) between; 0 is the release's `linear`."""
    if layers == 0:
        return nn.Linear(inputs, outputs)
    modules: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(layers - 1):
        modules += [nn.GELU(approximate="tanh"), nn.Linear(outputs, outputs)]
    return nn.Sequential(*modules)


class Prefix(NamedTuple):
    """Actions that are already decided: [B, K, S], and where [B, K, 1], 1 decided, 0 free."""

    actions: Tensor
    mask: Tensor


class TrainedPart(nn.Module):
    """Adaptors, compressors and core; its state dict has the key names of `policy.safetensors`."""

    def __init__(self, config: ReleaseConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        dim, features = config.core.hidden_size, config.wan.dim
        depth = layout.adaptors
        self.lang_adaptor = adaptor(depth["lang"], config.lang_token_dim, dim)
        self.img_adaptor = adaptor(depth["img"], config.img_token_dim, dim)
        # Values and the mask that says which of them this robot has.
        self.state_adaptor = adaptor(depth["state"], 2 * config.state_dim, dim)
        self.video_layernorm = nn.LayerNorm(features)
        self.motion_layernorm = nn.LayerNorm(features)
        self.compressed = layout.compressors is not None
        if layout.compressors is not None:
            raw, motion = layout.compressors
            self.video_token_compressor = TokenCompressor(raw, features)
            self.motion_token_compressor = TokenCompressor(motion, features)
            self.video_adaptor = adaptor(depth["video"], raw.dim, dim)  # serves both streams
        else:
            self.video_adaptor = adaptor(depth["video"], features, dim)
            self.motion_adaptor = adaptor(depth["motion"], features, dim)
        self.model = ActionCore(config)
        self.solver = solver_steps(config.denoise_steps)

    @property
    def condition_tokens(self) -> int:
        """Tokens that `video_tokens` makes."""
        if self.compressed:
            latents = self.video_token_compressor.latents, self.motion_token_compressor.latents
            return sum(latent.shape[0] * latent.shape[1] for latent in latents)
        streams = self.config.raw_stream, self.config.motion_stream
        return sum(math.prod(stream.token_grid) for stream in streams)

    def video_tokens(self, raw_features: Tensor, motion_features: Tensor) -> Tensor:
        """Features [B, N, Dd] of both streams -> condition tokens [B, Nv, D]."""
        raw, motion = self.video_layernorm(raw_features), self.motion_layernorm(motion_features)
        if self.compressed:
            raw, motion = self.video_token_compressor(raw), self.motion_token_compressor(motion)
            tokens: Tensor = self.video_adaptor(torch.cat([raw, motion], dim=1))
            return tokens
        return torch.cat([self.video_adaptor(raw), self.motion_adaptor(motion)], dim=1)

    def language_kv(self, lang_tokens: Tensor) -> Tensor:
        """T5 tokens [B, L, Dl] -> K/V of the core's even blocks."""
        return self.model.language_kv(self.lang_adaptor(lang_tokens))

    def visual_reads(self, img_tokens: Tensor, video_tokens: Tensor) -> list[KeyValue]:
        """Image-encoder tokens and condition tokens -> what the core's odd blocks read."""
        image_kv = self.model.image_kv(self.img_adaptor(img_tokens))
        return joined(image_kv, self.model.video_kv(video_tokens))

    def adapt_state(self, values: Tensor, action_mask: Tensor) -> Tensor:
        """States or actions [B, N, S], mask [B, 1, S] -> tokens [B, N, D]."""
        mask = action_mask.expand(-1, values.shape[1], -1)
        tokens: Tensor = self.state_adaptor(torch.cat([values, mask], dim=2))
        return tokens

    def predict(
        self,
        noisy: Tensor,
        timestep: Tensor,
        state_token: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        language: Sequence[KeyValue],
        visual: Sequence[KeyValue],
        lang_mask: Tensor,
    ) -> Tensor:
        """One denoiser call: noisy actions [B, K, S] -> predicted clean actions.

        `state_token` [B, 1, D] is from `adapt_state`, `action_mask` is [B, 1, S]; the others as in
        `ActionCore.forward`.
        """
        trajectory = torch.cat([state_token, self.adapt_state(noisy, action_mask)], dim=1)
        out: Tensor = self.model(trajectory, timestep, ctrl_freq, language, visual, lang_mask)
        return out

    def sample(
        self,
        noise: Tensor,
        state_token: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        language: Sequence[KeyValue],
        visual: Sequence[KeyValue],
        lang_mask: Tensor,
        prefix: Prefix | None = None,
    ) -> Tensor:
        """Noise [B, K, S] -> actions [B, K, S], zero where `action_mask` is: all solver steps.

        Where a prefix is given, each step's prediction is replaced by it. The solver is linear, so
        its next sample is then the prefix with exactly that step's noise, and the last one is the
        prefix: the free actions are denoised beside neighbours that are already decided.
        """
        x, x0 = noise, noise
        for step in self.solver:
            timestep = torch.tensor([step.timestep], dtype=torch.float32, device=noise.device)
            before, x0 = (
                x0,
                self.predict(
                    x, timestep, state_token, action_mask, ctrl_freq, language, visual, lang_mask
                ),
            )
            if prefix is not None:
                x0 = x0 + prefix.mask * (prefix.actions - x0)
            x = step.advance(x, x0, before)
        return x * action_mask
