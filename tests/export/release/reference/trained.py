"""What the release trained: condition tokens, action core, sampler. Tokens are [L, D]."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.export.release.reference.plain import Tensors, Weights, attention, gelu, silu, waves


def variance_norm(x: Tensor, weight: Tensor) -> Tensor:
    return x / (x.var(-1, keepdim=True) + 1e-6).sqrt() * weight


class Core:
    def __init__(self, weights: Tensors, config: dict[str, Any]) -> None:
        self.w, self.config = Weights(dict(weights)), config
        self.heads, self.depth = config["core"]["num_heads"], config["core"]["depth"]

    def video_tokens(self, raw: Tensor, motion: Tensor) -> Tensor:
        raw = self.w.layer_norm("video_layernorm", raw)
        motion = self.w.layer_norm("motion_layernorm", motion)
        if "video_token_compressor.latents" in self.w.tensors:
            raw = self.compressed("video_token_compressor", raw)
            motion = self.compressed("motion_token_compressor", motion)
            return self.w.chain("video_adaptor", torch.cat([raw, motion]), "tanh")
        raw = self.w.chain("video_adaptor", raw, "tanh")
        return torch.cat([raw, self.w.chain("motion_adaptor", motion, "tanh")])

    def compressed(self, key: str, features: Tensor) -> Tensor:
        w, latents = self.w, self.w[f"{key}.latents"]
        positions = w[f"{key}.time_pos_emb"][: len(latents)]
        frames = features.reshape(len(latents), -1, features.shape[-1])
        read, x, layer = w.chain(f"{key}.goal_emb", frames, "erf") + positions, latents, 0
        while f"{key}.layers.{layer}.0.to_q.weight" in w.tensors:
            name = f"{key}.layers.{layer}"
            y = w.layer_norm(f"{name}.0.norm_latents", x)
            both = torch.cat([w.layer_norm(f"{name}.0.norm_media", read), y], dim=1)
            query = w.linear(f"{name}.0.to_q", y)
            keys, values = w.linear(f"{name}.0.to_k", both), w.linear(f"{name}.0.to_v", both)
            heads, last = query.shape[-1] // 64, 1
            x = x + w.linear(f"{name}.0.to_out", attention(query, keys, values, heads))
            if f"{name}.1.qkv.weight" in w.tensors:
                query, keys, values = w.linear(f"{name}.1.qkv", x.transpose(0, 1)).chunk(3, -1)
                mixed = attention(query, keys, values, heads)
                x, last = x + w.linear(f"{name}.1.proj", mixed).transpose(0, 1), 2
            y = w.linear(f"{name}.{last}.1", w.layer_norm(f"{name}.{last}.0", x))
            x = x + w.linear(f"{name}.{last}.3", gelu(y, "erf"))
            layer += 1
        return w.layer_norm(f"{key}.norm", x.flatten(0, 1))

    def embedded(self, key: str, value: float) -> Tensor:
        w = self.w
        return w.linear(f"{key}.mlp.2", silu(w.linear(f"{key}.mlp.0", waves(value, 256))))

    def step(self, time: float, noisy: Tensor, inputs: Tensors, mask: Tensor) -> Tensor:
        """Noisy actions [K, S] -> predicted actions [K, S]."""
        w, key = self.w, "model"
        values = torch.cat([inputs["in.state"].double()[0], noisy])
        robot = inputs["in.action_mask"].double()[0].expand(len(values), -1)
        x = torch.cat(
            [
                self.embedded("model.t_embedder", time)[None],
                self.embedded("model.freq_embedder", float(inputs["in.ctrl_freq"]))[None],
                w.chain("state_adaptor", torch.cat([values, robot], -1), "tanh"),
            ]
        )
        x = x + w["model.x_pos_embed"][0]
        language = w.chain("lang_adaptor", inputs["in.lang_tokens"].double()[0], "tanh")
        language = language + w["model.lang_cond_pos_embed"][0, : len(language)]
        image = w.chain("img_adaptor", inputs["in.img_tokens"].double()[0], "tanh")
        image = image + w["model.img_cond_pos_embed"][0]
        visual = torch.cat([image, inputs["cond.video_tokens"].double()[0]])
        for block in range(self.depth):
            read = visual if block % 2 else language
            x = self.block(f"{key}.blocks.{block}", x, read, 0.0 if block % 2 else mask.double())
        x = variance_norm(x, w["model.final_layer.norm_final.weight"])
        x = w.linear("model.final_layer.ffn_final.fc1", x)
        x = w.linear("model.final_layer.ffn_final.fc2", gelu(x, "tanh"))
        return x[-self.config["action_chunk"] :]

    def block(self, key: str, x: Tensor, read: Tensor, bias: Any) -> Tensor:
        w = self.w

        def per_head(name: str, y: Tensor) -> Tensor:
            heads = y.reshape(len(y), self.heads, -1)
            return variance_norm(heads, w[f"{key}.{name}.weight"]).reshape(y.shape)

        y = variance_norm(x, w[f"{key}.norm1.weight"])
        query, keys, values = w.linear(f"{key}.attn.qkv", y).chunk(3, -1)
        query, keys = per_head("attn.q_norm", query), per_head("attn.k_norm", keys)
        mixed = attention(query, keys, values, self.heads)
        x = x + w.linear(f"{key}.attn.proj", mixed)
        y = variance_norm(x, w[f"{key}.norm2.weight"])
        query = per_head("cross_attn.q_norm", w.linear(f"{key}.cross_attn.q", y))
        keys, values = w.linear(f"{key}.cross_attn.kv", read).chunk(2, -1)
        keys = per_head("cross_attn.k_norm", keys)
        mixed = attention(query, keys, values, self.heads, bias)
        x = x + w.linear(f"{key}.cross_attn.proj", mixed)
        y = w.linear(f"{key}.ffn.fc1", variance_norm(x, w[f"{key}.norm3.weight"]))
        return x + w.linear(f"{key}.ffn.fc2", gelu(y, "tanh"))

    def sampled(self, inputs: Tensors, mask: Tensor) -> Tensor:
        """DPM-Solver++ of order 2, midpoint; first and last step of order 1."""
        times, sigmas = grid(self.config["denoise_steps"])
        x, before = inputs["in.noise"].double()[0], torch.zeros(())
        for i, time in enumerate(times):
            x0 = self.step(time, x, inputs, mask)
            now, then = sigmas[i], sigmas[i + 1]
            signal_now, signal_then = (1 / math.sqrt(s * s + 1) for s in (now, then))
            if then == 0:
                x = x0
                break
            width = math.log(now / then)
            decay = math.exp(-width) - 1
            x = then * signal_then / (now * signal_now) * x - signal_then * decay * x0
            if i:
                slope = (x0 - before) / (math.log(sigmas[i - 1] / now) / width)
                x = x - 0.5 * signal_then * decay * slope
            before = x0
        return x * inputs["in.action_mask"].double()[0]


def grid(steps: int) -> tuple[list[float], list[float]]:
    def power(t: float) -> float:
        return math.cos((t + 0.008) / 1.008 * math.pi / 2) ** 2

    left, kept = [], 1.0
    for i in range(1000):
        kept *= 1 - min(1 - power((i + 1) / 1000) / power(i / 1000), 0.999)
        left.append(kept)
    times = [round(999 * i / steps) for i in range(steps, 0, -1)]
    return [float(t) for t in times], [math.sqrt(1 / left[t] - 1) for t in times] + [0.0]
