"""Measures how long a bus takes to read all its servos, and draws the histogram."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.bus import ServoBus
from hw_drivers.family import Family
from hw_drivers.motors.recording import RecordingPort
from v2a.clock import Clock

CYCLES: Final = 200
# Longer than any repetition of a robot, so that a slow answer is measured and not lost.
_BUDGET_S: Final = 0.2
_BARS: Final = 10
_BAR_CHARACTERS: Final = 40


@dataclass(frozen=True, slots=True)
class Cycles:
    """The measured cycles. `ms` float64 [n] is the duration of each reading of all servos.

    `end_ms` float64 [n] is when each reading ended, from the start of the first.
    `repeated` counts the readings in which a servo had to be asked again, `lost` those in which a
    servo stayed silent. `wire_ms` is the time that the bytes of one reading take on the wire,
    `goal_ms` the time of the goals that a robot sends after it.
    """

    ms: npt.NDArray[np.float64]
    end_ms: npt.NDArray[np.float64]
    repeated: int
    lost: int
    wire_ms: float
    goal_ms: float

    def quantile_ms(self, q: float) -> float:
        """The `q`-quantile of the durations in ms."""
        return float(np.quantile(self.ms, q))


def measure(
    bus: ServoBus, port: RecordingPort, family: Family, ids: Sequence[int], clock: Clock
) -> Cycles:
    """Read positions `CYCLES` times as a robot does.

    Raises BusError if the servos keep their positions at different addresses.
    """
    models = [bus.models[servo_id] for servo_id in ids]
    names = [n for n in family.cycle_registers if any(n in m.items for m in models)]
    goal = bus.shared_item("goal_position", ids)
    goals = family.packets.make_sync_write(
        goal.address, goal.size, dict.fromkeys(ids, bytes(goal.size))
    )
    block = bus.block(names, ids)
    reader = bus.cycle_reader(block)
    took_ms, end_ms = np.zeros(CYCLES), np.zeros(CYCLES)
    first_ns = clock.now_ns()
    n_bytes, requests, lost = [0] * CYCLES, [0] * CYCLES, 0
    for k in range(CYCLES):
        port.exchanges.clear()
        start_ns = clock.now_ns()
        found = reader.read(block, _BUDGET_S)
        end_ns = clock.now_ns()
        took_ms[k], end_ms[k] = (end_ns - start_ns) * 1e-6, (end_ns - first_ns) * 1e-6
        lost += not found.all_valid
        requests[k] = len(port.exchanges)
        n_bytes[k] = sum(len(e.sent) + len(e.received) for e in port.exchanges)
    usual = min(requests)
    ms_per_byte = port.ns_per_byte * 1e-6
    return Cycles(
        took_ms,
        end_ms,
        sum(count > usual for count in requests),
        lost,
        float(np.median(n_bytes)) * ms_per_byte,
        len(goals) * ms_per_byte,
    )


def histogram(ms: npt.NDArray[np.float64]) -> list[tuple[float, float, int]]:
    """Count the durations `ms` float64 [n] in equally wide bins: (from, to, count), in ms.

    The last bin also holds what lies beyond the 99th percentile, so that one stall does not
    flatten all other bins.
    """
    low, high = float(ms.min()), float(np.quantile(ms, 0.99))
    edges = np.linspace(low, max(high, low + 0.01), _BARS + 1)
    counts, _ = np.histogram(np.minimum(ms, edges[-1]), edges)
    uppers = [*edges[1:-1].tolist(), max(float(edges[-1]), float(ms.max()))]
    return list(zip(edges[:-1].tolist(), uppers, counts.tolist(), strict=True))


def bars(bins: Sequence[tuple[float, float, int]]) -> list[str]:
    """The histogram as lines of text."""
    most = max(count for _, _, count in bins) or 1
    return [
        f"{low:8.2f} to {high:7.2f} ms  {count:4d}  {'#' * round(_BAR_CHARACTERS * count / most)}"
        for low, high, count in bins
    ]
