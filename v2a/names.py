"""The fixed words of the project: stages, ages and rates.

Every trace, table, budget and plot uses these names.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

STAGES: Final = (
    "capture",
    "preprocess",
    "frame_encode",
    "vae_spatial",
    "vae_motion",
    "vdm_spatial",
    "vdm_motion",
    "condition",
    "instruction",
    "observe",
    "denoise",
    "publish",
    "tick",
    "bus_read",
    "bus_write",
)

AGES: Final = ("condition_age", "chunk_age", "frame_to_motor")

Rate = Literal["instruction", "frame", "system2", "observe", "denoise"]
"""The event on which a graph's inputs change. The runtime runs the graph once per event."""

RATES: Final[tuple[Rate, ...]] = get_args(Rate)
