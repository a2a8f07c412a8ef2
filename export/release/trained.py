"""The trained part of a released policy: adaptors, compressors and the action core.

The frozen video model has checkpoints of its own.
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
    """Build `layers` linear layers with GELU (tanh form) between; 0 is the release's `linear`."""
    if layers == 0:
        return nn.Linear(inputs, outputs)
    modules: list[nn.Module] = [nn.Linear(inputs, outputs)]
    for _ in range(layers - 1):
        modules += [nn.GELU(approximate="tanh"), nn.Linear(outputs, outputs)]
    return nn.Sequential(*modules)


class Prefix(NamedTuple):
    """Actions that are already decided [B, K, S], and their mask [B, K, 1]: 1 decided, 0 free."""

    actions: Tensor
    mask: Tensor


class TrainedPart(nn.Module):
    """The adaptors, compressors and core. The key names are those of `policy.safetensors`.

    S is the width of the state vector, with unused slots zero.
    """

    def __init__(self, config: ReleaseConfig, layout: Layout) -> None:
        super().__init__()
        self.config = config
        dim, features = config.core.hidden_size, config.wan.dim
        depth = layout.adaptors
        self.lang_adaptor = adaptor(depth["lang"], config.lang_token_dim, dim)
        self.img_adaptor = adaptor(depth["img"], config.img_token_dim, dim)
        # Its input is the state's values and the mask of slots that this robot has.
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
        """Number of tokens that `video_tokens` returns."""
        if self.compressed:
            latents = self.video_token_compressor.latents, self.motion_token_compressor.latents
            return sum(latent.shape[0] * latent.shape[1] for latent in latents)
        streams = self.config.raw_stream, self.config.motion_stream
        return sum(math.prod(stream.token_grid) for stream in streams)

    def video_tokens(self, raw_features: Tensor, motion_features: Tensor) -> Tensor:
        """Map both streams' features [B, N, Dd] to condition tokens [B, Nv, D]."""
        raw, motion = self.video_layernorm(raw_features), self.motion_layernorm(motion_features)
        if self.compressed:
            raw, motion = self.video_token_compressor(raw), self.motion_token_compressor(motion)
            tokens: Tensor = self.video_adaptor(torch.cat([raw, motion], dim=1))
            return tokens
        return torch.cat([self.video_adaptor(raw), self.motion_adaptor(motion)], dim=1)

    def language_kv(self, lang_tokens: Tensor) -> Tensor:
        """Project T5 tokens [B, L, Dl] to the K/V of the core's even blocks."""
        return self.model.language_kv(self.lang_adaptor(lang_tokens))

    def visual_reads(self, img_tokens: Tensor, video_tokens: Tensor) -> list[KeyValue]:
        """Project image tokens [B, Ni, Di] and condition tokens [B, Nv, D] to odd blocks' K/V."""
        image_kv = self.model.image_kv(self.img_adaptor(img_tokens))
        return joined(image_kv, self.model.video_kv(video_tokens))

    def adapt_state(self, values: Tensor, action_mask: Tensor) -> Tensor:
        """Project states or actions [B, N, S] with their mask [B, 1, S] to tokens [B, N, D]."""
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
        """Run the denoiser once: noisy actions [B, K, S] to predicted clean actions [B, K, S].

        `state_token` [B, 1, D] comes from `adapt_state`, and `action_mask` is [B, 1, S]. The other
        arguments are those of `ActionCore.forward`.
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
        """Run all solver steps: noise [B, K, S] to actions [B, K, S], zero where the mask is zero.

        A prefix replaces the prediction of its actions in each step. As the solver is linear, the
        next sample of these actions is the prefix with exactly that step's noise, and the last
        sample is the prefix. So the free actions are denoised beside decided neighbours.
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
