"""How long a bus takes to read all its servos: measured, counted, drawn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.bus import ServoBus
from hw_drivers.motors.recording import RecordingPort
from hw_drivers.robot.config import PROTOCOLS
from v2a.clock import Clock

CYCLES: Final = 200
# Longer than any retry of a robot: what is slow is to be measured, not given up.
_BUDGET_S: Final = 0.2
_BARS: Final = 10
_BAR_CHARACTERS: Final = 40
# Bytes of the sync write that takes the goals out: frame, address, size, and id and goal of each.
_GOAL_BYTES: Final = {"dynamixel2": lambda n: 14 + 5 * n, "feetech": lambda n: 8 + 3 * n}


@dataclass(frozen=True, slots=True)
class Cycles:
    """`ms` float64 [n]: how long each reading of all servos took. `repeated`: readings in which
    someone had to be asked again; `lost`: in which someone was not heard at all. `wire_ms`: what
    the bytes of one alone take; `goal_ms`: those of the goals that a robot sends besides."""

    ms: npt.NDArray[np.float64]
    repeated: int
    lost: int
    wire_ms: float
    goal_ms: float

    def quantile_ms(self, q: float) -> float:
        return float(np.quantile(self.ms, q))


def measure(
    bus: ServoBus, port: RecordingPort, protocol: str, ids: Sequence[int], clock: Clock
) -> Cycles:
    """Read positions as a robot does, `CYCLES` times. Raises BusError where the servos have no such
    block in common."""
    models = [bus.models[servo_id] for servo_id in ids]
    names = [n for n in PROTOCOLS[protocol].cycle_registers if any(n in m.items for m in models)]
    block = bus.block(names, ids)
    reader = bus.cycle_reader(block)
    took_ms = np.zeros(CYCLES)
    n_bytes, requests, lost = [0] * CYCLES, [0] * CYCLES, 0
    for k in range(CYCLES):
        port.exchanges.clear()
        start_ns = clock.now_ns()
        found = reader.read(block, _BUDGET_S)
        took_ms[k] = (clock.now_ns() - start_ns) * 1e-6
        lost += not found.all_valid
        requests[k] = len(port.exchanges)
        n_bytes[k] = sum(len(e.sent) + len(e.received) for e in port.exchanges)
    usual = min(requests)
    ms_per_byte = port.ns_per_byte * 1e-6
    return Cycles(
        took_ms,
        sum(count > usual for count in requests),
        lost,
        float(np.median(n_bytes)) * ms_per_byte,
        _GOAL_BYTES[protocol](len(ids)) * ms_per_byte,
    )


def histogram(ms: npt.NDArray[np.float64]) -> list[tuple[float, float, int]]:
    """(from, to, how many) of equally wide bins in ms; what is beyond the 99th percentile is in the
    last one, so that one stall does not flatten all others."""
    low, high = float(ms.min()), float(np.quantile(ms, 0.99))
    edges = np.linspace(low, max(high, low + 0.01), _BARS + 1)
    counts, _ = np.histogram(np.minimum(ms, edges[-1]), edges)
    uppers = [*edges[1:-1].tolist(), max(float(edges[-1]), float(ms.max()))]
    return list(zip(edges[:-1].tolist(), uppers, counts.tolist(), strict=True))


def bars(bins: Sequence[tuple[float, float, int]]) -> list[str]:
    """The histogram as text."""
    most = max(count for _, _, count in bins) or 1
    return [
        f"{low:8.2f} to {high:7.2f} ms  {count:4d}  {'#' * round(_BAR_CHARACTERS * count / most)}"
        for low, high, count in bins
    ]
