"""Counters and histograms of the control loop.

The loop fills them in itself. In a real run the policy's process fills in a copy from the ticks
that the control process sends.
"""

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
    """The measurements of one tick. A missing age is -1 and a missing jump is NaN."""

    late_ns: int = 0  # after the tick's grid point
    chunk_age_ns: int = -1
    frame_to_motor_ns: int = -1
    seam_jump_rad: float = math.nan


class ControlRecord:
    """Counters and histograms of one run of the loop."""

    def __init__(self, safety: SafetyRecord) -> None:
        self.safety = safety
        self.realtime: dict[str, str] = {}  # real-time setting -> what the system granted
        self.torque_fault: str | None = None  # why the torque may still be on
        self.health: Health | None = None  # the servos' last report
        self.thread: dict[str, Any] = {}  # `ThreadMeter.times` of a loop in another process
        self.ticks = 0
        self.missed_ticks = Counter(late=0, bus=0, no_chunk=0)
        self.counts: Counter[str] = Counter()
        self.seam_jumps_rad: deque[float] = deque(maxlen=65536)
        self.late = Histogram()
        self.chunk_age = Histogram()
        self.frame_to_motor = Histogram()

    def add(self, facts: TickFacts) -> None:
        """Add one tick. The caller keeps `ticks` and `missed_ticks`."""
        self.late.observe(facts.late_ns)
        if facts.frame_to_motor_ns >= 0:
            self.chunk_age.observe(facts.chunk_age_ns)
            self.frame_to_motor.observe(facts.frame_to_motor_ns)
        if not math.isnan(facts.seam_jump_rad):
            self.seam_jumps_rad.append(facts.seam_jump_rad)
