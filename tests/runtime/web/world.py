"""A view with something of everything in it."""

from __future__ import annotations

import numpy as np

from hw_drivers.bus.block import Reading
from hw_drivers.robot.robot import Health
from hw_drivers.robot.torque import TorqueState
from runtime.control.outcome import Outcome
from runtime.mailbox import ChunkMsg, FrameMsg, StateMsg
from runtime.recording.messages import RunCounters, SafetyChange, Spans
from runtime.safety.safety import State
from runtime.web.live_status import OutcomeStatus
from runtime.web.view import About, View
from tests.runtime.conftest import INDEX, STAGES
from v2a.clock import FakeClock

MS = 1_000_000
ABOUT = About(
    "two",
    "tiny",
    'push "the" cube',
    ("base", "tip"),
    temperature_max_c=65.0,
    dry_run=False,
    stages=STAGES,
)
IMAGE = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)


def span(stage: str, t0_ms: float, t1_ms: float, arg: int = 0) -> list[int]:
    return [INDEX[stage], round(t0_ms * MS), round(t1_ms * MS), arg]


def spans(*rows: list[int], thread: str = "control") -> Spans:
    return Spans(thread, np.array(rows, np.int64))


def chunk(seq: int, capture_ms: int, publish_ms: int, condition_age_ms: int = 120) -> ChunkMsg:
    return ChunkMsg(seq, capture_ms * MS, publish_ms * MS, 0, 0, np.zeros((4, 2)), 50 * MS,
                    condition_age_ms * MS)  # fmt: skip


def reading(*values: float) -> Reading:
    known = np.array(values)
    return Reading(known, ~np.isnan(known), np.zeros(len(known), np.int64))


def health(alarm: str = "") -> Health:
    return Health(0, None, reading(31.0, np.nan), None, ("", alarm))


def vitals(ticks: int = 100, alarm: str = "") -> RunCounters:
    return RunCounters(
        t_ns=0,
        ticks=ticks,
        missed_ticks={"late": 1, "bus": 0, "no_chunk": 7},
        counts={"system1": {"chunks": 3}},
        health=health(alarm),
        torque_fault=None,
        epoch=0,
    )


def outcome(
    base: TorqueState = "off",
    tip: TorqueState = "off",
    state: State = State.TORQUE_OFF,
    final: bool = True,
) -> Outcome:
    torque: dict[str, TorqueState] = {"base": base, "tip": tip}
    return Outcome(run="1f", state=state, reason="why", torque=torque, final=final, fault=None)


ARMED = OutcomeStatus.of(outcome("on", "on", State.ARMED, final=False), False, ABOUT.joints)


def view(clock: FakeClock | None = None) -> View:
    made = View(ABOUT, clock or FakeClock())
    pictures = ((0, IMAGE),)
    for message in (
        FrameMsg(7, 0, 0, 7, 0, IMAGE, pictures),
        StateMsg(1, 0, 0, 0, 0, np.array([0.1, -0.2]), np.array([0.1, np.nan])),
        chunk(1, 100, 130),
        spans(span("tick", 150, 151, 1), span("bus_write", 150.5, 150.8, 1)),
        SafetyChange(140 * MS, "armed", "following"),
        vitals(),
    ):
        made.take(message)
    return made
