"""Keeps the newest messages of a run, and makes the status that the live page shows."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Reading
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, Message, StateMsg
from runtime.recording.messages import RunCounters, SafetyChange, Spans
from runtime.safety.health import QUANTITIES
from runtime.safety.safety import State
from runtime.span_ages import ages_of_spans
from runtime.web.live_status import JointStatus, LiveStatus, OutcomeStatus, RecentChange
from runtime.web.tally import Rate, Tally
from v2a.clock import Clock
from v2a.names import AGES, in_table_order
from v2a.spans import GPU

CHANGES_SHOWN: Final = 8
CHUNKS_KEPT: Final = 64  # the spans of a tick arrive about 0.5 s after its chunk
KINDS: Final[dict[type, str]] = {
    FrameMsg: "frame", ConditionMsg: "condition", ChunkMsg: "chunk", StateMsg: "state",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """The facts that do not change during a run."""

    robot: str
    policy: str
    instruction: str
    joints: tuple[str, ...]
    temperature_max_c: float
    dry_run: bool
    stages: tuple[str, ...]  # by index, as in `Header.stages`


class View:
    """The newest messages of a run.

    Only one thread calls `take`. Another thread that reads must hold `lock`.
    """

    def __init__(self, about: About, clock: Clock) -> None:
        self.about = about
        self.lock = threading.Lock()
        self.vitals: RunCounters | None = None
        start = SafetyChange(clock.now_ns(), State.DISARMED.value, "start")
        self.changes = deque([start], maxlen=CHANGES_SHOWN)
        self.newest: dict[str, Message] = {}
        self.rates = {kind: Rate() for kind in KINDS.values()}
        self.stages: dict[str, Tally] = {}
        self.gpu_stages: dict[str, Tally] = {}
        self.ages: dict[str, Tally] = {}
        self.heard_ns = clock.now_ns()  # when the policy's process last sent a message
        self._clock = clock
        self._chunks: OrderedDict[int, ChunkMsg] = OrderedDict()

    def take(self, message: object) -> None:
        """Update the data from a message. Waits only while another thread makes a status."""
        take = _TAKEN.get(type(message))
        with self.lock:
            self.heard_ns = self._clock.now_ns()
            if take is not None:
                take(self, message)

    def picture(self) -> Image | None:
        """Return the newest picture, uint8 [H, W, 3] RGB at the policy's size, or None."""
        frame = self.newest.get("frame")
        return frame.image if isinstance(frame, FrameMsg) else None

    def joints(self) -> tuple[JointStatus, ...]:
        """Return the joints in the robot's order, with the newest angles and servo readings."""
        state = self.newest.get("state")
        health = None if self.vitals is None else self.vitals.health
        columns: dict[str, Sequence[str | float]] = {"name": self.about.joints}
        if isinstance(state, StateMsg):
            columns["position_rad"] = state.position_rad.tolist()
            columns["command_rad"] = state.command_rad.tolist()
        if health is not None:
            columns["alarm"] = health.alarms
            readings: dict[str, Reading | None] = {n: getattr(health, n) for n in QUANTITIES}
            columns |= {n: r.value.tolist() for n, r in readings.items() if r is not None}
        return tuple(
            JointStatus.model_validate({n: each[k] for n, each in columns.items() if k < len(each)})
            for k in range(len(self.about.joints))
        )

    def _message(self, message: Message) -> None:
        kind = KINDS[type(message)]
        self.newest[kind] = message
        self.rates[kind].add(message.t_publish_ns)

    def _chunk(self, chunk: ChunkMsg) -> None:
        self._message(chunk)
        self._add(self.ages, "condition_age", np.array([chunk.condition_age_ns], np.int64))
        self._chunks[chunk.seq] = chunk
        if len(self._chunks) > CHUNKS_KEPT:
            self._chunks.popitem(last=False)

    def _spans(self, spans: Spans) -> None:
        rows = spans.rows
        stages = self.gpu_stages if spans.thread.startswith(GPU) else self.stages
        for stage in np.unique(rows[:, 0]).tolist():
            of_stage = rows[rows[:, 0] == stage]
            self._add(stages, self.about.stages[stage], of_stage[:, 2] - of_stage[:, 1])
        for age, found in ages_of_spans(rows, self._chunks).items():
            self._add(self.ages, age, found[:, 1])

    def _add(self, to: dict[str, Tally], name: str, durations_ns: npt.NDArray[np.int64]) -> None:
        if len(durations_ns):
            to.setdefault(name, Tally()).add(np.maximum(durations_ns, 0))

    def _vitals(self, vitals: RunCounters) -> None:
        self.vitals = vitals

    def _change(self, change: SafetyChange) -> None:
        self.changes.append(change)


_TAKEN: Final[dict[type, Callable[[View, Any], None]]] = {
    FrameMsg: View._message,
    StateMsg: View._message,
    ConditionMsg: View._message,
    ChunkMsg: View._chunk,
    Spans: View._spans,
    SafetyChange: View._change,
    RunCounters: View._vitals,
}


def snapshot(view: View, now_ns: int, outcome: OutcomeStatus) -> LiveStatus:
    """Make the status as of `now_ns`."""
    with view.lock:
        about, vitals, frame = view.about, view.vitals, view.newest.get("frame")
        state = view.newest.get("state")
        return LiveStatus(
            robot=about.robot,
            dry_run=about.dry_run,
            policy=about.policy,
            instruction=about.instruction,
            temperature_max_c=about.temperature_max_c,
            silent_s=(now_ns - view.heard_ns) / 1e9,
            safety=tuple(
                RecentChange(ago_s=(now_ns - c.t_ns) / 1e9, state=c.state, reason=c.reason)
                for c in view.changes
            ),
            picture=frame and frame.seq,
            ages_ms={age: view.ages[age].recent_ms() for age in AGES if age in view.ages},
            stages_ms={
                stage: view.stages[stage].recent_ms()
                for stage in in_table_order(about.stages)
                if stage in view.stages
            },
            rates_hz={kind: rate.hz(now_ns) for kind, rate in view.rates.items()},
            joints=view.joints(),
            state_age_s=None if state is None else (now_ns - state.t_capture_ns) / 1e9,
            ticks=vitals and vitals.ticks,
            missed_ticks=vitals and vitals.missed_ticks,
            torque_fault=vitals and vitals.torque_fault,
            outcome=outcome,
        )
