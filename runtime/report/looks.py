"""Says how the page draws each stage of a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from v2a.names import MACHINE_STAGES, graphs_of


class Look(NamedTuple):
    """CSS class and style. The page's CSS has the hues of the machine's stages."""

    class_: str
    style: str | None = None


def looks_of(stages: Sequence[str]) -> dict[str, Look]:
    """Stage -> its look. Graphs that follow each other in `stages` have neighbouring hues.

    A graph's name is no class: a bundle may choose one that the page uses for something else.
    """
    graphs = graphs_of(stages)
    hues = {name: 360 * k // len(graphs) for k, name in enumerate(graphs)}
    return {
        **{stage: Look(stage) for stage in MACHINE_STAGES},
        **{name: Look("graph", f"--h:{hue}") for name, hue in hues.items()},
    }
