"""Removes streams of the condition, to measure what each is worth to the policy.

The action core and the registers read a condition as keys and values (K/V). Removing a stream sets
its tokens to zero. The K/V of a zero token do not depend on the image, only on the biases of the
K/V layers. `zero_tokens.npz` holds them. To write that file again (with torch):

    python -m demo.streams
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt

from demo.episodes import CHECKPOINT
from runtime.engines.base import Engine, EngineFactory, Tensors
from v2a.bundle import GraphSpec

Stream = Literal["spatial", "motion"]

STREAMS: Final[tuple[Stream, ...]] = ("spatial", "motion")  # the order of their tokens
TOKENS: Final = -2  # the axis of tokens in K/V [blocks, 2, 1, heads, tokens, head width]
ZERO_TOKENS: Final = Path(__file__).with_name("zero_tokens.npz")


class WithoutStreams(Engine):
    """The `condition` graph without the information of some streams."""

    def __init__(self, engine: Engine, streams: tuple[Stream, ...]) -> None:
        self._engine = engine
        self._streams = streams
        with np.load(ZERO_TOKENS) as zero:
            self._zero = dict(zero)

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        """Compute the condition, then overwrite the K/V of the removed streams.

        Feeds and outputs have shape, dtype and unit as in the graph's spec.
        """
        outputs = self._engine.run(feeds)
        return {name: self._without(kv, self._zero[name]) for name, kv in outputs.items()}

    def close(self) -> None:
        """Close the wrapped engine."""
        self._engine.close()

    def _without(self, kv: npt.NDArray[Any], zero: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """Return K/V [..., tokens, head width] with the removed streams' halves set to `zero`."""
        halves = np.split(kv, len(STREAMS), axis=TOKENS)
        for index, stream in enumerate(STREAMS):
            if stream in self._streams:
                halves[index] = np.broadcast_to(zero, halves[index].shape)
        return np.ascontiguousarray(np.concatenate(halves, axis=TOKENS))


def without_streams(engines: EngineFactory, streams: tuple[Stream, ...]) -> EngineFactory:
    """Wrap an engine factory so that conditions lack `streams`."""

    def make(graph: GraphSpec, path: Path) -> Engine:
        engine = engines(graph, path)
        return WithoutStreams(engine, streams) if graph.name == "condition" else engine

    return make


def main() -> None:
    """Write `zero_tokens.npz` from the demo's checkpoint."""
    from demo.torch_engine import zero_token_kv  # here: the robot has no torch

    kv = zero_token_kv(CHECKPOINT)
    np.savez(ZERO_TOKENS, video_kv=kv["video_kv"], register_kv=kv["register_kv"])
    print(f"wrote {ZERO_TOKENS}")


if __name__ == "__main__":
    main()
