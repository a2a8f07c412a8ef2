"""System 1: the observer, which combines the current image with an aged condition, and the
action DiT in RDT's form.

Both take precomputed keys and values, so that each is computed only when its inputs change.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from export.layers.blocks import CrossBlock, RmsNorm, mlp, position_embedding, sinusoid, stacked_kv
from export.own.config import CoreConfig, PolicyConfig

STATE_TOKENS = 2  # proprioception, condition age
AGE_FEATURES = 16
_AGE_SPAN = 100.0  # the oldest age in sinusoid units, so that one tick shows in the fast sinusoids


class StateEncoder(nn.Module):
    """Encodes joint state and condition age as two tokens."""

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
        """Encode positions and commands [B, J] in rad and ages [B] in s as tokens [B, 2, D].

        Ages are clamped to the policy's maximum.
        """
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
    """Combines the current image with the aged condition, once per chunk.

    Registers (learned tokens) and state tokens attend to each other and, in every block, to image
    and video tokens. So the network can extrapolate an old motion to the present.
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
        """Project tokens [B, L, D] to the K/V of every block [blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks, tokens)

    def forward(
        self,
        image_tokens: Tensor,
        position_rad: Tensor,
        command_rad: Tensor,
        condition_age_s: Tensor,
        register_kv: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Return registers [B, R, D] and state tokens [B, 2, D].

        Args:
            image_tokens: [B, N, D] of the current frame.
            position_rad: measured joints [B, J].
            command_rad: last commanded joints [B, J].
            condition_age_s: [B].
            register_kv: the condition's K/V, from `register_kv`.
        """
        state = self.state(position_rad, command_rad, condition_age_s) + self.state_positions
        registers = self.registers.expand(image_tokens.shape[0], -1, -1)
        x = torch.cat([registers, state], dim=1)
        kv = torch.cat([self.register_kv(image_tokens), register_kv], dim=4)
        for block, block_kv in zip(self.blocks, kv.unbind(0), strict=True):
            x = block(x, block_kv)
        return x[:, :-STATE_TOKENS], x[:, -STATE_TOKENS:]


class ActionDit(nn.Module):
    """Predicts clean actions from noisy ones.

    Its tokens are timestep, state and actions. Even blocks read language, odd blocks read image and
    video.
    """

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
        """Project language [B, L, language_dim] to K/V [even blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks[::2], self.language(lang_tokens))

    def visual_kv(self, tokens: Tensor) -> Tensor:
        """Project visual or condition tokens [B, L, D] to K/V [odd blocks, 2, B, heads, L, hd]."""
        return stacked_kv(self.blocks[1::2], tokens)

    def forward(
        self,
        noisy: Tensor,
        timestep: Tensor,
        lang_kv: Tensor,
        visual_kv: Tensor,
        state_tokens: Tensor,
    ) -> Tensor:
        """Predict the clean actions [B, K, J].

        Args:
            noisy: normalised actions with noise [B, K, J].
            timestep: [B] in 0..999 of the training grid.
            lang_kv: from `language_kv`.
            visual_kv: from `visual_kv`, for all visual tokens joined on the token axis.
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
