"""The released policy with random weights: what one chunk and one condition compute.

Everything that the suite needs of the project's other rooms is imported here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml
from naive_core import naive_cross
from torch import Tensor, nn
from torch.nn import functional

from export.layers import blocks as layers
from export.layers.blocks import sinusoid
from export.plan.plan import find_device, plan
from export.release.action_core import ScalarEmbedder, joined
from export.release.config import ReleaseConfig
from export.release.costs import release_cost
from export.release.layout import ADAPTORS, Layout
from export.release.policy import ReleasedPolicy, Stream
from export.release.wan_vae import WanVaeEncoder, average_down, pixels_to_channels
from gpu.device import Device

__all__ = ["ReleasedPolicy", "Stream", "WanVaeEncoder", "average_down", "pixels_to_channels",
           "sinusoid"]  # fmt: skip

RELEASED = Path(__file__).parents[2] / "export" / "release" / "released.yaml"
TOY: Mapping[str, Any] = {
    "wan": {"dim": 24, "in_dim": 4, "ffn_dim": 48, "text_dim": 8, "freq_dim": 16, "num_heads": 2,
            "num_layers": 4},
    "wan_layers_used": 4,
    "core": {"hidden_size": 32, "depth": 4, "num_heads": 4},
    "vae": {"dim": 4},
    "raw_stream": {"num_frames": 1, "video_size": [32, 64], "extraction": "sobel"},
    "motion_stream": {"num_frames": 9, "latent_num_frames": 3, "video_size": [32, 32],
                      "extraction": "fft"},
    "action_chunk": 8, "patches_per_image": 6, "img_token_dim": 16, "lang_token_dim": 16,
    "max_lang_len": 32,
}  # fmt: skip
LANGUAGE_TOKENS, TEXT_TOKENS = 32, 512


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None
) -> Tensor:
    """`export.layers.blocks.attend` by PyTorch's fused call, which the release uses as well."""
    out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias)
    return out.transpose(1, 2).flatten(2)


def use_fused_attention() -> None:
    """Replace the written-out attention, which is for the exporter, in every module of it."""
    for module in list(sys.modules.values()):
        if getattr(module, "attend", None) is layers.attend and module is not layers:
            module.attend = fused_attention  # type: ignore[attr-defined]
    layers.attend = fused_attention


def _in_its_type(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Sinusoids are computed in float32; the layers behind them have the policy's type."""
    return (arguments[0].to(next(module.parameters()).dtype), *arguments[1:])


def config_of(rehearse: bool) -> ReleaseConfig:
    """The released sizes, or toy ones."""
    sizes = yaml.safe_load(RELEASED.read_text(encoding="utf-8"))
    return ReleaseConfig.model_validate(sizes | dict(TOY) if rehearse else sizes)


def random_policy(config: ReleaseConfig, device: Device) -> ReleasedPolicy:
    """Random weights, made on the device."""
    use_fused_attention()
    torch.manual_seed(0)
    with torch.device(device.kind):
        policy = ReleasedPolicy(config, Layout(ADAPTORS))
        for parameter in policy.parameters():  # positions start as zeros
            parameter.data += 0.02 * torch.randn_like(parameter)
    policy = policy.to(device.kind, device.dtype).eval().requires_grad_(False)
    for module in policy.modules():
        if isinstance(module, ScalarEmbedder):
            module.mlp.register_forward_pre_hook(_in_its_type)
    policy.dit.time_embedding.register_forward_pre_hook(_in_its_type)
    if device.is_gpu:
        torch.cuda.empty_cache()  # the float32 originals
    return policy


class Chunk:
    """System 1: a chunk as the release computes it and as the exported graphs do, same weights.

    Image tokens are an input: the image encoder is in neither. The release's mask over the
    language, which adds 1 to every score, is left out of both.
    """

    @torch.no_grad()
    def __init__(self, policy: ReleasedPolicy, device: Device, fused: bool = False) -> None:
        self.policy, self.trained, self.core = policy, policy.trained, policy.trained.model
        self.block: Callable[..., Tensor] = _block
        self.release_block: Callable[..., Tensor] = _release_block
        if fused:
            self.block = compiled(_block, device)
            self.release_block = compiled(_release_block, device)
        config = policy.config
        frame = config.image_tokens // config.img_history
        self.images = [device.random(1, frame, config.img_token_dim) for _ in range(2)]
        self.slots = [torch.tensor([slot], device=device.kind) for slot in range(2)]
        self.language = device.random(1, LANGUAGE_TOKENS, config.lang_token_dim)
        self.video_tokens = device.random(1, self.trained.condition_tokens, config.core.hidden_size)
        self.noise = device.random(1, config.action_chunk, config.state_dim)
        self.position = device.random(1, len(config.agilex_state_indices))
        self.joints = torch.tensor(config.agilex_state_indices, device=device.kind)
        self.frequency = torch.tensor([float(config.ctrl_freq)], device=device.kind)
        self.times = [
            torch.tensor([float(step.timestep)], device=device.kind) for step in self.trained.solver
        ]
        # Constants of the exported graph.
        self.time_tokens = [self.core.t_embedder(time) for time in self.times]
        self.frequency_token = self.core.freq_embedder(self.frequency)
        # What other rates leave behind.
        self.language_kv = self.trained.language_kv(self.language)
        self.video_kv = self.core.video_kv(self.video_tokens)
        self.image_kv = [self.frame(slot) for slot in range(2)]

    def frame(self, slot: int) -> Tensor:
        """Graphs `frame_encode` (its adaptor) and `observe` of one frame."""
        return self.core.frame_kv(self.trained.img_adaptor(self.images[slot]), self.slots[slot])

    def denoise(self) -> Tensor:
        """Graph `denoise`: all solver steps, reading cached keys and values."""
        return self.solved(self.image_kv)

    def solved(self, image_kv: Sequence[Tensor]) -> Tensor:
        """Joints [1, K, J], from the K/V of both frames."""
        language = joined(self.language_kv)
        visual = joined(*image_kv, self.video_kv)

        def predict(trajectory: Tensor, step: int) -> Tensor:
            x = torch.cat([self.time_tokens[step], self.frequency_token, trajectory], dim=1)
            x = x + self.core.x_pos_embed
            for index, block in enumerate(self.core.blocks):
                x = self.block(block, x, (language, visual)[index % 2][index // 2])
            return x

        return self._solve(predict)

    def ours(self) -> Tensor:
        """Both frames of the history, then the solver."""
        return self.solved([self.frame(slot) for slot in range(2)])

    def critical(self) -> Tensor:
        """What is left once the newest frame is there: the older one's K/V were made before."""
        self.critical_result = self.solved([self.image_kv[0], self.frame(1)])
        return self.critical_result

    def release(self) -> Tensor:
        """Adaptors once; keys, values and embeddings anew in every solver step."""
        language = self.trained.lang_adaptor(self.language)
        images = self.trained.img_adaptor(torch.cat(self.images, dim=1))

        def predict(trajectory: Tensor, step: int) -> Tensor:
            core = self.core
            time, frequency = core.t_embedder(self.times[step]), core.freq_embedder(self.frequency)
            x = torch.cat([time, frequency, trajectory], dim=1) + core.x_pos_embed
            text = language + core.lang_cond_pos_embed[:, : language.shape[1]]
            visual = torch.cat([images + core.img_cond_pos_embed, self.video_tokens], dim=1)
            for index, block in enumerate(core.blocks):
                x = self.release_block(block, x, (text, visual)[index % 2])
            return x

        return self._solve(predict)

    def _solve(self, predict: Callable[[Tensor, int], Tensor]) -> Tensor:
        state, mask = self.policy.slots.to_state(self.position[:, None])
        token = self.trained.adapt_state(state, mask)
        x, x0 = self.noise, self.noise
        for index, step in enumerate(self.trained.solver):
            trajectory = torch.cat([token, self.trained.adapt_state(x, mask)], dim=1)
            out = self.core.final_layer(predict(trajectory, index))[:, -self.core.chunk :]
            before, x0 = x0, out
            x = step.advance(x, x0, before)
        return x.index_select(-1, self.joints)


def _block(block: Any, x: Tensor, read: tuple[Tensor, Tensor]) -> Tensor:
    return block(x, read, None)  # type: ignore[no-any-return]


def _release_block(block: Any, x: Tensor, tokens: Tensor) -> Tensor:
    x = x + block.attn(block.norm1(x))
    x = x + naive_cross(block.cross_attn, block.norm2(x), tokens)
    return x + block.ffn(block.norm3(x))  # type: ignore[no-any-return]


def dit_block(block: Any, x: Tensor, shifts: Tensor, rotary: Any, text_kv: Tensor) -> Tensor:
    """One block of the video DiT."""
    return block(x, shifts, rotary, text_kv)  # type: ignore[no-any-return]


def compiled(function: Callable[..., Tensor], device: Device) -> Callable[..., Tensor]:
    """The function of a block by torch.compile: one kernel for what is pointwise or a norm."""
    backend = "inductor" if device.is_gpu else "aot_eager"
    fused: Callable[..., Tensor] = torch.compile(function, dynamic=False, backend=backend)
    return fused


def bounds(config: ReleaseConfig, copy_bytes_s: float, bf16_flop_s: float) -> dict[str, Any]:
    """FLOPs, bytes and the least time of every graph at these measured rates."""
    cost = release_cost(config, Layout(ADAPTORS))
    planned = plan(cost, find_device("h100"), None, "bf16").graphs
    return {
        graph.name: {
            "gflop": graph.flops / 1e9,
            "moved_mb": graph.moved_bytes / 1e6,
            "at_least_ms": 1e3 * max(graph.flops / bf16_flop_s, graph.moved_bytes / copy_bytes_s),
            "limit": "compute" if graph.flops / bf16_flop_s > graph.moved_bytes / copy_bytes_s
            else "memory",
        }
        for graph in planned
    }  # fmt: skip
