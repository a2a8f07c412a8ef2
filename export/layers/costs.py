"""Counts the FLOPs, weights, inputs and outputs of one run of a graph, from sizes alone.

All counts are of elements; `export.plan` turns them into bytes and seconds. FLOPs are those of
matrix products and convolutions, two per multiply-add, as in `torch.utils.flop_counter`. Norms,
activations and whatever the exporter folds into constants count as free.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import prod

from v2a.names import Rate

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True, slots=True)
class Work:
    """The cost of some layers. `widest` is the most elements that one layer reads and writes."""

    flops: int = 0
    weights: int = 0
    widest: int = 0

    def __add__(self, other: Work) -> Work:
        widest = max(self.widest, other.widest)
        return Work(self.flops + other.flops, self.weights + other.weights, widest)

    def __mul__(self, layers: int) -> Work:
        """Return the cost of `layers` equal layers with their own weights."""
        return Work(self.flops * layers, self.weights * layers, self.widest)


@dataclass(frozen=True, slots=True)
class Part:
    """The part of a graph whose weights are in one checkpoint file, under keys matching `keys`."""

    work: Work
    keys: str

    def weights_in(self, shapes: Shapes) -> int:
        """Count this part's weights in a checkpoint with these shapes."""
        match = re.compile(self.keys).fullmatch
        return sum(prod(shape) for key, shape in shapes.items() if match(key))


@dataclass(frozen=True, slots=True)
class GraphCost:
    """The cost of one run of a graph. A chunk needs `runs` of them.

    `parts` maps a checkpoint file to the work with its weights. `inputs` and `outputs` count
    elements, without images. `passes` is the number of solver steps. Each pass repeats the work of
    all parts and reads all weights and `reread` input elements, the cached K/V.
    """

    name: str
    rate: Rate
    parts: Mapping[str, Part]
    inputs: int
    outputs: int
    passes: int = 1
    reread: int = 0
    runs: int = 1

    @property
    def flops(self) -> int:
        return self.passes * sum(part.work.flops for part in self.parts.values())

    @property
    def weights(self) -> int:
        return sum(part.work.weights for part in self.parts.values())

    @property
    def widest(self) -> int:
        return max(part.work.widest for part in self.parts.values())


@dataclass(frozen=True, slots=True)
class PolicyCost:
    """The costs of a policy's graphs.

    `core_flops` is the action core's work for one chunk when split by rate. `naive_core_flops` is
    its work when every solver step recomputes all K/V.
    """

    name: str
    graphs: tuple[GraphCost, ...]
    chunk_s: float
    naive_core_flops: int
    core_flops: int
    notes: tuple[str, ...] = ()


def norm(dim: int, vectors: int = 1) -> Work:
    """Cost of a norm with `vectors` learned vectors (2: scale and shift)."""
    return Work(weights=dim * vectors)


def linear(tokens: int, inputs: int, outputs: int, bias: bool = True) -> Work:
    """Cost of one linear layer."""
    weights = inputs * outputs + (outputs if bias else 0)
    return Work(2 * tokens * inputs * outputs, weights, tokens * (inputs + outputs))


def mlp(tokens: int, *widths: int) -> Work:
    """Cost of linear layers from each width to the next."""
    return sum((linear(tokens, *pair) for pair in pairwise(widths)), Work())


def attend(queries: int, keys: int, dim: int) -> Work:
    """Cost of attention over all heads. It is fused, so scores are not stored."""
    return Work(4 * queries * keys * dim, 0, 2 * (queries + keys) * dim)


def convolve(before: int, after: int, inputs: int, outputs: int, taps: int) -> Work:
    """Cost of a convolution with bias from `before` to `after` positions."""
    flops = 2 * after * inputs * outputs * taps
    return Work(flops, inputs * outputs * taps + outputs, before * inputs + after * outputs)


def gradient_filter(kernels: int, elements: int) -> Work:
    """Cost of 3 x 3 kernels on every channel: two for a gradient, one for a Laplacian."""
    return Work(flops=2 * 9 * kernels * elements, widest=(1 + kernels) * elements)


def band_pass(frames: int, elements: int) -> Work:
    """Cost of a matrix over time; `elements` counts all frames."""
    return Work(flops=2 * frames * elements, widest=2 * elements)


def kv(tokens: int, dim: int, heads: int) -> Work:
    """Cost of one action-core block's K/V, with keys normalised per head."""
    return linear(tokens, dim, 2 * dim) + norm(dim // heads)


def kv_elements(count: int, tokens: int, dim: int) -> int:
    """Count the elements of the K/V of `count` blocks."""
    return 2 * count * tokens * dim


def cross_block(tokens: int, keys: int, dim: int, heads: int, hidden: int) -> Work:
    """Cost of an RDT block over cached K/V: attention, cross-attention, feed-forward."""
    projections = mlp(tokens, dim, 3 * dim) + linear(tokens, dim, dim) * 3
    attention = attend(tokens, tokens, dim) + attend(tokens, keys, dim)
    return (
        projections + attention + mlp(tokens, dim, hidden, dim) + norm(3 * dim + 3 * dim // heads)
    )


def text_kv(tokens: int, dim: int) -> Work:
    """Cost of one video DiT block's text K/V, with keys normalised over the whole width."""
    return linear(tokens, dim, dim) * 2 + norm(dim)


def dit_block(tokens: int, text: int, dim: int, ffn: int) -> Work:
    """Cost of a Wan block over cached text K/V. Its modulation at t = 0 is one 6 x dim vector."""
    projections = linear(tokens, dim, dim) * 6 + norm(3 * dim)
    attention = attend(tokens, tokens, dim) + attend(tokens, text, dim)
    modulated_norms = norm(dim, vectors=2) + norm(6 * dim)
    return projections + attention + mlp(tokens, dim, ffn, dim) + modulated_norms


# Patterns of the weights' keys of the blocks above, after `blocks.N.`.
CORE_BLOCK_KEYS = r"(norm[123]|attn|cross_attn\.(q|q_norm|proj)|ffn)\..*"
DIT_TEXT_KEYS = r"cross_attn\.(k|v|norm_k)\..*"
DIT_BLOCK_KEYS = r"(self_attn\..*|cross_attn\.(q|o|norm_q)\..*|norm3\..*|ffn\..*|modulation)"


def blocks(indices: range) -> str:
    """Return a regular expression for `blocks.N.` with N in `indices`."""
    return rf"blocks\.({'|'.join(map(str, indices))})\."
