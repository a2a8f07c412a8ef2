"""Computes from the control loop's spans how old the data was that moved the motors.

The trace, the report and the live page use it. The ages are those that the loop itself counts
(`Control._note_ages`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.mailbox import ChunkMsg
from v2a.spans import STAGE_INDEX

Rows = npt.NDArray[np.int64]

# age -> (stage, column, attribute): the age ends at this column of the stage's span, and begins at
# this attribute of the chunk in play. The chunk's seq is the span's arg.
_AGES: Final = {
    "frame_to_motor": ("bus_write", 2, "t_capture_ns"),
    "chunk_age": ("tick", 1, "t_publish_ns"),
}


def ages_of_spans(rows: Rows, chunks: Mapping[int, ChunkMsg]) -> dict[str, Rows]:
    """Return for each age its points, int64 [n, 2]: the time and the age at that time, both in ns.

    `rows` are spans, int64 [m, 4]. Spans whose chunk is not in `chunks` are left out. Ages are
    never below 0.
    """
    played = rows[np.isin(rows[:, 3], list(chunks))]
    found = {}
    for age, (stage, moment, since) in _AGES.items():
        spans = played[played[:, 0] == STAGE_INDEX[stage]]
        born_ns = np.array([getattr(chunks[seq], since) for seq in spans[:, 3].tolist()], np.int64)
        at_ns = spans[:, moment]
        found[age] = np.stack([at_ns, np.maximum(at_ns - born_ns, 0)], axis=1)
    return found
