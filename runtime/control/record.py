"""What the control loop did. The loop writes it, or the client that listens to the loop."""

from __future__ import annotations

import math
from collections import Counter, deque
from dataclasses import dataclass

from hw_drivers.robot.robot import Health
from hw_drivers.robot.torque import TorqueState
from runtime.host.run_delay import ThreadTimes
from runtime.safety.safety import SafetyRecord
from v2a.spans import Histogram


@dataclass(slots=True)
class TickFacts:
    """What one tick adds to the record. Without a chunk, ages are -1 and the jump is NaN."""

    late_ns: int = 0  # after the tick's grid point
    chunk_age_ns: int = -1
    frame_to_motor_ns: int = -1
    seam_jump_rad: float = math.nan


class ControlRecord:
    """Counters and histograms of one run of the loop."""

    def __init__(self, safety: SafetyRecord) -> None:
        self.safety = safety
        self.dry_run = False  # whether the robot is virtual, so that nothing real moves
        self.realtime: dict[str, str] = {}  # what was asked of the kernel -> what it gave
        self.torque_fault: str | None = None  # why some torque may have been left on
        self.stop_latch: str | None = None  # what became of an emergency stop
        self.torque: dict[str, TorqueState] = {}  # joint -> what its servo confirmed last
        self.health: Health | None = None  # the newest report of the servos
        self.thread: ThreadTimes | None = None  # of a loop in another process
        # When the control process last sent a tick; None for a loop in this process.
        self.told_ns: int | None = None
        self.ticks = 0
        self.missed_ticks = Counter(late=0, bus=0, no_chunk=0)
        self.counts: Counter[str] = Counter()
        self.seam_jumps_rad: deque[float] = deque(maxlen=65536)
        self.late = Histogram()
        self.chunk_age = Histogram()
        self.frame_to_motor = Histogram()

    def add(self, facts: TickFacts) -> None:
        """Add one tick's facts. Whoever runs the loop keeps `ticks` and `missed_ticks`."""
        self.late.observe(facts.late_ns)
        if facts.frame_to_motor_ns >= 0:
            self.chunk_age.observe(facts.chunk_age_ns)
            self.frame_to_motor.observe(facts.frame_to_motor_ns)
        if not math.isnan(facts.seam_jump_rad):
            self.seam_jumps_rad.append(facts.seam_jump_rad)
