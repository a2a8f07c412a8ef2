"""What the release trained and saves as the policy: adaptors, compressors and the action core.

The video model around it is frozen and lies in checkpoints of its own.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.models.sampler import solver_steps
from export.release.action_core import ActionCore
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

    def visual_kv(self, img_tokens: Tensor, video_tokens: Tensor) -> Tensor:
        """Image-encoder tokens and condition tokens -> K/V of the core's odd blocks."""
        image_kv = self.model.image_kv(self.img_adaptor(img_tokens))
        return torch.cat([image_kv, self.model.video_kv(video_tokens)], dim=4)

    def predict(
        self,
        noisy: Tensor,
        timestep: Tensor,
        state: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        lang_kv: Tensor,
        visual_kv: Tensor,
        lang_mask: Tensor,
    ) -> Tensor:
        """One denoiser call: noisy actions [B, K, S] -> predicted clean actions.

        `state` and `action_mask` are [B, 1, S]; the others as in `ActionCore.forward`.
        """
        values = torch.cat([state, noisy], dim=1)
        mask = action_mask.expand(-1, values.shape[1], -1)
        trajectory = self.state_adaptor(torch.cat([values, mask], dim=2))
        out: Tensor = self.model(trajectory, timestep, ctrl_freq, lang_kv, visual_kv, lang_mask)
        return out

    def sample(
        self,
        noise: Tensor,
        state: Tensor,
        action_mask: Tensor,
        ctrl_freq: Tensor,
        lang_kv: Tensor,
        visual_kv: Tensor,
        lang_mask: Tensor,
    ) -> Tensor:
        """Noise [B, K, S] -> actions [B, K, S], zero where `action_mask` is: all solver steps."""
        x, x0 = noise, noise
        for step in self.solver:
            timestep = torch.tensor([step.timestep], dtype=torch.float32, device=noise.device)
            before, x0 = (
                x0,
                self.predict(
                    x, timestep, state, action_mask, ctrl_freq, lang_kv, visual_kv, lang_mask
                ),
            )
            x = step.advance(x, x0, before)
        return x * action_mask
