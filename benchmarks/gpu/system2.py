"""Splits System 2 of the released policy into small steps, so that it can be cut anywhere.

Each step reads one value and writes the next one, so a captured step can be launched again. All
steps in order compute what the policy's own methods compute.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gpu.device import Device, Lane, Launch
from gpu.released import (
    TEXT_TOKENS,
    ReleasedPolicy,
    Stream,
    WanVaeEncoder,
    average_down,
    compiled,
    dit_block,
    pixels_to_channels,
    sinusoid,
)

Function = Callable[[Any], Any]


def _opened(layer: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """The first layer of a stage; its input is for the shortcut at the stage's end."""
    return x, layer(x)


def _inside(layer: Any, pair: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    return pair[0], layer(pair[1])


def vae_functions(vae: WanVaeEncoder) -> list[Function]:
    """Video -> normalised latents, layer by layer; a stage carries its input along."""
    encoder = vae.encoder

    def close(stage: Any) -> Function:
        def add(pair: tuple[Tensor, Tensor]) -> Tensor:
            x, out = pair
            for layer in stage.downsamples[2:]:
                out = layer(out)
            return out + average_down(x, stage.outputs, *stage.factors)

        return add

    def latents(x: Tensor) -> Tensor:
        mean, _ = vae.conv1(encoder.head(x)).chunk(2, dim=1)
        shape = (1, -1, 1, 1, 1)
        return (mean - vae._latent_mean.view(shape)) / vae._latent_std.view(shape)  # type: ignore[no-any-return]

    found: list[Function] = [lambda video: encoder.conv1(pixels_to_channels(video))]
    for stage in encoder.downsamples:
        first, second, *_ = stage.get_submodule("downsamples").children()
        found += [partial(_opened, first), partial(_inside, second), close(stage)]
    return [*found, *encoder.middle, latents]


def dit_functions(
    policy: ReleasedPolicy, stream: Stream, text_kv: Tensor, run: Callable[..., Tensor]
) -> list[Function]:
    """A stream's latents -> features [B, T, N, D]: filter and patches, then each block."""
    dit, rotary = policy.dit, stream.rotary()
    embedded = dit.time_embedding(sinusoid(dit.clean, dit.config.freq_dim))
    shifts = dit.time_projection(embedded).unflatten(-1, (6, -1))

    def patches(latents: Tensor) -> Tensor:
        maps = stream.filter(latents[:, :, -stream.frames :])
        return dit.patch_embedding(maps).flatten(3).permute(0, 2, 3, 1)  # type: ignore[no-any-return]

    blocks = [
        lambda x, block=block, kv=kv: run(block, x, shifts, rotary, kv)
        for block, kv in zip(dit.blocks, text_kv.unbind(0), strict=True)
    ]
    return [patches, *blocks]


class System2:
    """One condition from latents, or from video where `with_vae`: its steps and its result."""

    @torch.no_grad()
    def __init__(
        self, policy: ReleasedPolicy, device: Device, with_vae: bool, fused: bool = False
    ) -> None:
        config = policy.config
        block = compiled(dit_block, device) if fused else dit_block
        self.policy, self.with_vae = policy, with_vae
        raw, motion = config.raw_stream, config.motion_stream
        self.text = device.random(1, TEXT_TOKENS, config.wan.text_dim)
        self.text_kv = policy.dit.text_kv(self.text)
        self.videos = [
            device.random(1, 3, stream.num_frames, *stream.video_size) for stream in (raw, motion)
        ]
        self.latents = [
            device.random(1, config.wan.in_dim, stream.encoded_frames, *stream.latent_size)
            for stream in (raw, motion)
        ]
        self.values: dict[str, Any] = {}
        self.steps: list[Callable[[], None]] = []
        features = []
        for name, stream, source in (
            ("raw", policy.raw, 0), ("motion", policy.motion, 1)
        ):  # fmt: skip
            key = f"{name}.0"
            self.values[key] = (self.videos if with_vae else self.latents)[source]
            if with_vae:
                key = self._row(f"{name}.vae", key, vae_functions(policy.vae))
            features.append(
                self._row(f"{name}.dit", key, dit_functions(policy, stream, self.text_kv, block))
            )
        self.steps.append(lambda: self._condition(*features))

    def _row(self, name: str, key: str, functions: Sequence[Function]) -> str:
        """Append a step a function; the key of the last one's result."""
        for index, function in enumerate(functions):
            after = f"{name}.{index}"

            def step(function: Function = function, key: str = key, after: str = after) -> None:
                self.values[after] = function(self.values[key])

            self.steps.append(step)
            key = after
        return key

    def _condition(self, raw: str, motion: str) -> None:
        # The blocks' [B, T, N, D]; a step of its own would be a CUDA graph without a kernel.
        features = (self.values[key].flatten(1, 2) for key in (raw, motion))
        tokens = self.policy.condition(*features)
        self.values["video_kv"] = self.policy.trained.model.video_kv(tokens)

    def whole(self) -> None:
        """All steps."""
        for step in self.steps:
            step()

    @torch.no_grad()
    def plain(self) -> Tensor:
        """The same by the policy's own methods."""
        raw, motion = (
            [self.policy.vae_encode(video) for video in self.videos] if self.with_vae
            else self.latents
        )  # fmt: skip
        features = [
            self.policy.features(stream, latents, self.text_kv)
            for stream, latents in ((self.policy.raw, raw), (self.policy.motion, motion))
        ]
        return self.policy.trained.model.video_kv(self.policy.condition(*features))


@dataclass
class Sliced:
    """Launches of System 2 in a row, and the time of the longest of them."""

    launches: list[Launch]
    longest_ms: float
    sum_ms: float


def sliced(system2: System2, lane: Lane, budget_ms: float) -> Sliced:
    """Neighbouring steps joined while a slice stays within `budget_ms`, each slice one graph.

    A step that is longer by itself is a slice of its own.
    """
    times = [_median_ms(lane.capture(step), lane) for step in system2.steps]
    groups: list[list[Callable[[], None]]] = [[]]
    used = 0.0
    for step, taken in zip(system2.steps, times, strict=True):
        if groups[-1] and used + taken > budget_ms:
            groups.append([])
            used = 0.0
        groups[-1].append(step)
        used += taken

    def joined(group: Sequence[Callable[[], None]]) -> Callable[[], None]:
        def work() -> None:
            for step in group:
                step()

        return work

    launches = [lane.capture(joined(group)) for group in groups]
    each = [_median_ms(launch, lane) for launch in launches]
    return Sliced(launches, max(each), sum(each))


def _median_ms(launch: Launch, lane: Lane, runs: int = 5) -> float:
    taken = []
    for _ in range(runs):
        start_ns = time.perf_counter_ns()
        launch()
        lane.wait()
        taken.append(time.perf_counter_ns() - start_ns)
    return float(np.median(taken)) / 1e6
