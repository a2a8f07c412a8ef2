"""What one run of a graph costs, from sizes alone: FLOPs, weights, tensors in and out.

Pure arithmetic on counts of elements; `export.plan` turns it into bytes and seconds. What counts
are matrix products and convolutions, a multiply-add as two FLOPs, as `torch.utils.flop_counter` has
it; norms and activations do not. What the exporter folds into a constant costs nothing.
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
    """FLOPs and weights add up; `widest` is what the widest layer reads and writes."""

    flops: int = 0
    weights: int = 0
    widest: int = 0

    def __add__(self, other: Work) -> Work:
        widest = max(self.widest, other.widest)
        return Work(self.flops + other.flops, self.weights + other.weights, widest)

    def __mul__(self, layers: int) -> Work:
        """The same layer so many times, each time with weights of its own."""
        return Work(self.flops * layers, self.weights * layers, self.widest)


@dataclass(frozen=True, slots=True)
class Part:
    """Work of a graph whose weights lie in one checkpoint file, under keys that match `keys`."""

    work: Work
    keys: str

    def weights_in(self, shapes: Shapes) -> int:
        """Elements of the weights that a file with these shapes holds for this part."""
        match = re.compile(self.keys).fullmatch
        return sum(prod(shape) for key, shape in shapes.items() if match(key))


@dataclass(frozen=True, slots=True)
class GraphCost:
    """One run of a graph, of which a chunk takes `runs`. `parts` goes by checkpoint file.

    `inputs` and `outputs` count elements; pictures, a byte each, are left out. A graph of several
    `passes` (solver steps) does the work of its parts in each, and in each reads all its weights
    and, of its inputs, `reread` (the cached K/V).
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
    """The graphs of a policy. `naive_core_flops` is what the action core takes for one chunk where
    every solver step makes all K/V anew, `core_flops` what it takes split by rate."""

    name: str
    graphs: tuple[GraphCost, ...]
    chunk_s: float
    naive_core_flops: int
    core_flops: int
    notes: tuple[str, ...] = ()


def norm(dim: int, vectors: int = 1) -> Work:
    """A norm with one learned vector, or with scale and shift."""
    return Work(weights=dim * vectors)


def linear(tokens: int, inputs: int, outputs: int, bias: bool = True) -> Work:
    weights = inputs * outputs + (outputs if bias else 0)
    return Work(2 * tokens * inputs * outputs, weights, tokens * (inputs + outputs))


def mlp(tokens: int, *widths: int) -> Work:
    """Linear layers between those widths."""
    return sum((linear(tokens, *pair) for pair in pairwise(widths)), Work())


def attend(queries: int, keys: int, dim: int) -> Work:
    """Attention of all heads together; fused: its scores are not stored."""
    return Work(4 * queries * keys * dim, 0, 2 * (queries + keys) * dim)


def convolve(before: int, after: int, inputs: int, outputs: int, taps: int) -> Work:
    """A convolution from `before` to `after` positions, with a bias."""
    flops = 2 * after * inputs * outputs * taps
    return Work(flops, inputs * outputs * taps + outputs, before * inputs + after * outputs)


def gradient_filter(kernels: int, elements: int) -> Work:
    """3 x 3 kernels on each channel's map: two of a gradient, one of a Laplacian."""
    return Work(flops=2 * 9 * kernels * elements, widest=(1 + kernels) * elements)


def band_pass(frames: int, elements: int) -> Work:
    """A matrix over time, `elements` in all frames together."""
    return Work(flops=2 * frames * elements, widest=2 * elements)


def kv(tokens: int, dim: int, heads: int) -> Work:
    """Keys and values of one block of an action core, its keys normalised per head."""
    return linear(tokens, dim, 2 * dim) + norm(dim // heads)


def kv_elements(count: int, tokens: int, dim: int) -> int:
    """Of the keys and values of so many blocks."""
    return 2 * count * tokens * dim


def cross_block(tokens: int, keys: int, dim: int, heads: int, hidden: int) -> Work:
    """An RDT block over K/V made before: attention, cross-attention, feed-forward."""
    projections = mlp(tokens, dim, 3 * dim) + linear(tokens, dim, dim) * 3
    attention = attend(tokens, tokens, dim) + attend(tokens, keys, dim)
    return (
        projections + attention + mlp(tokens, dim, hidden, dim) + norm(3 * dim + 3 * dim // heads)
    )


def text_kv(tokens: int, dim: int) -> Work:
    """Keys and values of one video DiT block's cross-attention, its keys normalised whole."""
    return linear(tokens, dim, dim) * 2 + norm(dim)


def dit_block(tokens: int, text: int, dim: int, ffn: int) -> Work:
    """A Wan block over text K/V made before; its modulation at t = 0 is one vector of 6 x dim."""
    projections = linear(tokens, dim, dim) * 6 + norm(3 * dim)
    attention = attend(tokens, tokens, dim) + attend(tokens, text, dim)
    modulated_norms = norm(dim, vectors=2) + norm(6 * dim)
    return projections + attention + mlp(tokens, dim, ffn, dim) + modulated_norms


# The keys of what the blocks above hold, behind `blocks.N.`.
CORE_BLOCK_KEYS = r"(norm[123]|attn|cross_attn\.(q|q_norm|proj)|ffn)\..*"
DIT_TEXT_KEYS = r"cross_attn\.(k|v|norm_k)\..*"
DIT_BLOCK_KEYS = r"(self_attn\..*|cross_attn\.(q|o|norm_q)\..*|norm3\..*|ffn\..*|modulation)"


def blocks(indices: range) -> str:
    """`blocks.N.` for those N, as a regular expression."""
    return rf"blocks\.({'|'.join(map(str, indices))})\."
