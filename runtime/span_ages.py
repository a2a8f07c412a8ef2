"""How old the data was that moved the motors, by the control loop's spans: for the trace, the
report and the live page, as the loop itself counts it (`Control._note_ages`)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.mailbox import ChunkMsg
from v2a.spans import STAGE_INDEX

Rows = npt.NDArray[np.int64]

# age -> at which end (column) of which stage's span it counts, and since which time of the chunk
# in play, whose seq is the span's arg
_AGES: Final = {
    "frame_to_motor": ("bus_write", 2, "t_capture_ns"),
    "chunk_age": ("tick", 1, "t_publish_ns"),
}


def ages_of_spans(rows: Rows, chunks: Mapping[int, ChunkMsg]) -> dict[str, Rows]:
    """Age -> int64 [n, 2] of (when, how old), in ns, never below 0: of the spans in `rows`,
    int64 [m, 4], that are about one of `chunks`."""
    played = rows[np.isin(rows[:, 3], list(chunks))]
    found = {}
    for age, (stage, moment, since) in _AGES.items():
        spans = played[played[:, 0] == STAGE_INDEX[stage]]
        born_ns = np.array([getattr(chunks[seq], since) for seq in spans[:, 3].tolist()], np.int64)
        at_ns = spans[:, moment]
        found[age] = np.stack([at_ns, np.maximum(at_ns - born_ns, 0)], axis=1)
    return found
