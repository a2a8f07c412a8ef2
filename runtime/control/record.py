"""What the control loop did: written by the loop itself, or by who listens to it from outside."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass
from typing import Any

from hw_drivers.robot.robot import Health
from runtime.safety.safety import SafetyRecord
from v2a.spans import Histogram


@dataclass(slots=True)
class TickFacts:
    """What one tick adds; where there is nothing, an age is -1 and a jump NaN."""

    late_ns: int = 0  # since the grid point
    chunk_age_ns: int = -1
    frame_to_motor_ns: int = -1
    seam_jump_rad: float = math.nan


class ControlRecord:
    """Counters and histograms of one run of the loop."""

    def __init__(self, safety: SafetyRecord) -> None:
        self.safety = safety
        self.realtime: dict[str, str] = {}  # what was asked of the system -> what it gave
        self.torque_fault: str | None = None  # why some torque may have been left on
        self.health: Health | None = None  # what the servos last said of themselves
        self.thread: dict[str, Any] = {}  # `ThreadMeter.times` of a loop in another process
        self.ticks = 0
        self.missed_ticks = Counter(late=0, bus=0, no_chunk=0)
        self.counts: Counter[str] = Counter()
        self.seam_jumps_rad: deque[float] = deque(maxlen=65536)
        self.late = Histogram()
        self.chunk_age = Histogram()
        self.frame_to_motor = Histogram()

    def add(self, facts: TickFacts) -> None:
        """Count one tick's facts; `ticks` and `missed_ticks` are kept by who runs the loop."""
        self.late.observe(facts.late_ns)
        if facts.frame_to_motor_ns >= 0:
            self.chunk_age.observe(facts.chunk_age_ns)
            self.frame_to_motor.observe(facts.frame_to_motor_ns)
        if not math.isnan(facts.seam_jump_rad):
            self.seam_jumps_rad.append(facts.seam_jump_rad)
