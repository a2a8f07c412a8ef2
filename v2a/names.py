"""The fixed words of the project: the machine's stages, ages and rates.

Every trace, table, budget and plot uses these names. A bundle adds the names of its graphs.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, Literal, get_args

SENSING: Final = ("capture", "preprocess")
MACHINE_STAGES: Final = (*SENSING, "publish", "tick", "bus_read", "bus_write")
"""The stages of every run. Their index is the same in every run: that of this tuple."""

AGES: Final = ("condition_age", "chunk_age", "frame_to_motor")

Rate = Literal["instruction", "frame", "system2", "observe", "denoise"]
"""The event on which a graph's inputs change. The runtime runs the graph once per event."""

RATES: Final[tuple[Rate, ...]] = get_args(Rate)

SYSTEM1: Final[tuple[Rate, ...]] = ("frame", "observe", "denoise")
"""The rates of the graphs that System 1 runs."""


def stages_of(graphs: Iterable[str]) -> tuple[str, ...]:
    """Return the stages of a run in the order of their index: the machine's, then the graphs."""
    return (*MACHINE_STAGES, *graphs)


def graphs_of(stages: Sequence[str]) -> Sequence[str]:
    """Return the graphs among the stages of a run."""
    return stages[len(MACHINE_STAGES) :]


def in_table_order(stages: Sequence[str]) -> tuple[str, ...]:
    """Return the stages of a run in the order of the data flow: a picture, the graphs, the bus."""
    after = MACHINE_STAGES[len(SENSING) :]
    return (*SENSING, *graphs_of(stages), *after)
