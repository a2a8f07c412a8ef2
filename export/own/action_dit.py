"""The fast system: an observer that fuses now with the aged condition, and the action DiT (RDT).

Keys and values come in ready made, so that each is computed at the rate at which it changes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import CrossBlock, RmsNorm, mlp, position_embedding, sinusoid, stacked_kv
from export.own.config import CoreConfig, PolicyConfig

STATE_TOKENS = 2  # proprioception, condition age
AGE_FEATURES = 16
_AGE_SPAN = 100.0  # the oldest age in sinusoid units, so that a tick of age turns the fast ones


class StateEncoder(nn.Module):
    """Joint state and condition age to the state tokens [B, 2, D]."""

    centre: Tensor
    half_range: Tensor
    step_rad: Tensor

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        dim = config.core.dim
        lower = torch.tensor([joint.lower_rad for joint in config.joints])
        upper = torch.tensor([joint.upper_rad for joint in config.joints])
        velocity = torch.tensor([joint.velocity_limit_rad_s for joint in config.joints])
        self.register_buffer("centre", (lower + upper) / 2, persistent=False)
        self.register_buffer("half_range", (upper - lower) / 2, persistent=False)
        self.register_buffer("step_rad", velocity * config.step_s, persistent=False)
        self.age_max_s = config.condition_age_max_s
        self.proprioception = mlp(3 * len(config.joints), dim, dim)
        self.age = mlp(AGE_FEATURES + 1, dim, dim)

    def forward(self, position_rad: Tensor, command_rad: Tensor, age_s: Tensor) -> Tensor:
        """Positions and commands [B, J], age [B]; ages past the maximum read as the maximum."""
        joints = torch.cat(
            [
                (position_rad - self.centre) / self.half_range,
                (command_rad - self.centre) / self.half_range,
                (command_rad - position_rad) / self.step_rad,
            ],
            dim=-1,
        )
        age = (age_s / self.age_max_s).clamp(0.0, 1.0)
        age_features = torch.cat([age[:, None], sinusoid(_AGE_SPAN * age, AGE_FEATURES)], dim=-1)
        return torch.stack([self.proprioception(joints), self.age(age_features)], dim=1)


class Observer(nn.Module):
    """Register and state tokens that read image and condition once a call.

    The registers, the joint state and the condition's age attend to each other and, in every
    block, to image and video tokens: here an old motion is carried forward to now.
    """

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        core = config.core
        self.state = StateEncoder(config)
        self.registers = position_embedding(core.registers, core.dim)
        self.state_positions = position_embedding(STATE_TOKENS, core.dim)
        self.blocks = nn.ModuleList(
            CrossBlock(core.dim, core.heads, core.ffn_ratio) for _ in range(core.register_blocks)
        )

    def register_kv(self, tokens: Tensor) -> Tensor:
        """Tokens [B, L, D] -> K/V of every register block [blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks, tokens)

    def forward(
        self,
        image_tokens: Tensor,
        position_rad: Tensor,
        command_rad: Tensor,
        condition_age_s: Tensor,
        register_kv: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Refined registers [B, R, D] and state tokens [B, 2, D]."""
        state = self.state(position_rad, command_rad, condition_age_s) + self.state_positions
        registers = self.registers.expand(image_tokens.shape[0], -1, -1)
        x = torch.cat([registers, state], dim=1)
        kv = torch.cat([self.register_kv(image_tokens), register_kv], dim=4)
        for block, block_kv in zip(self.blocks, kv.unbind(0), strict=True):
            x = block(x, block_kv)
        return x[:, :-STATE_TOKENS], x[:, -STATE_TOKENS:]


class ActionDit(nn.Module):
    """Sample-predicting denoiser of [timestep, state, actions]; even blocks read language, odd
    blocks read image and video."""

    def __init__(self, config: CoreConfig, joints: int, chunk: int, language_dim: int) -> None:
        super().__init__()
        dim = config.dim
        self.freq_dim, self.chunk = config.freq_dim, chunk
        self.time = mlp(config.freq_dim, dim, dim)
        self.action = mlp(joints, dim, dim)
        self.language = mlp(language_dim, dim, dim)
        self.positions = position_embedding(1 + STATE_TOKENS + chunk, dim)
        self.blocks = nn.ModuleList(
            CrossBlock(dim, config.heads, config.ffn_ratio) for _ in range(config.blocks)
        )
        self.norm_final = RmsNorm(dim)
        self.out = nn.Linear(dim, joints)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def language_kv(self, lang_tokens: Tensor) -> Tensor:
        """Language [B, L, language_dim] -> [even blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks[::2], self.language(lang_tokens))

    def visual_kv(self, tokens: Tensor) -> Tensor:
        """Image, register or condition tokens [B, L, D] -> [odd blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks[1::2], tokens)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        lang_kv: Tensor,
        visual_kv: Tensor,
        state_tokens: Tensor,
    ) -> Tensor:
        """Noisy actions [B, K, J] at timestep [B] -> predicted clean actions [B, K, J].

        Args:
            noisy: normalised actions with noise.
            timestep: 0..999 of the training grid.
            lang_kv: from `language_kv`.
            visual_kv: from `visual_kv` of all visual tokens, joined on the token axis.
            state_tokens: [B, 2, D] from the observer.
        """
        time = self.time(sinusoid(timestep, self.freq_dim))[:, None]
        time = time.expand(noisy.shape[0], -1, -1)
        x = torch.cat([time, state_tokens, self.action(noisy)], dim=1) + self.positions
        for index, block in enumerate(self.blocks):
            kv = visual_kv if index % 2 else lang_kv
            x = block(x, kv[index // 2])
        out: Tensor = self.out(self.norm_final(x[:, -self.chunk :]))
        return out
