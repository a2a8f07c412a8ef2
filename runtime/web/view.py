"""What the page shows: the newest of everything, kept as it comes, drawn up when somebody looks."""

from __future__ import annotations

import math
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from hw_drivers.bus.block import Reading
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, Image, Message, StateMsg, Vector
from runtime.recording.messages import RunCounters, SafetyChange, Spans
from runtime.safety.health import QUANTITIES
from runtime.safety.safety import State
from runtime.span_ages import ages_of_spans
from runtime.web.tally import Rate, Tally
from v2a.clock import Clock
from v2a.names import AGES, STAGES
from v2a.spans import GPU

_SHOWN: Final = ("robot", "policy", "instruction", "temperature_max_c")
CHANGES_SHOWN: Final = 8
CHUNKS_KEPT: Final = 64  # a tick is told of some 0.5 s after its chunk came
KINDS: Final[dict[type, str]] = {
    FrameMsg: "frame", ConditionMsg: "condition", ChunkMsg: "chunk", StateMsg: "state",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class About:
    """What does not change in a run."""

    robot: str
    policy: str
    instruction: str
    joints: tuple[str, ...]
    temperature_max_c: float


class View:
    """A sink of the recorder process. `take` is for the one thread that brings messages; who reads
    from another thread holds `lock`."""

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
        self.heard_ns = clock.now_ns()  # when the policy's process last told anything
        self._clock = clock
        self._chunks: OrderedDict[int, ChunkMsg] = OrderedDict()

    def take(self, message: object) -> None:
        """Keep what is of use. Never waits for longer than a reader needs to draw up a page."""
        take = _TAKEN.get(type(message))
        with self.lock:
            self.heard_ns = self._clock.now_ns()
            if take is not None:
                take(self, message)

    def close(self) -> None:
        """Nothing is held."""

    def picture(self) -> Image | None:
        """The newest one, at the policy's size."""
        frame = self.newest.get("frame")
        return frame.image if isinstance(frame, FrameMsg) else None

    def joints(self) -> list[dict[str, Any]]:
        """By joint: angles and what the servo says of itself; None for what is not known."""
        state = self.newest.get("state")
        health = None if self.vitals is None else self.vitals.health
        columns: dict[str, list[Any]] = {"name": list(self.about.joints)}
        if isinstance(state, StateMsg):
            columns["position_rad"] = _known(state.position_rad)
            columns["command_rad"] = _known(state.command_rad)
        if health is not None:
            columns["alarm"] = list(health.alarms)
            readings: dict[str, Reading | None] = {n: getattr(health, n) for n in QUANTITIES}
            columns |= {n: [] if r is None else _known(r.value) for n, r in readings.items()}
        return [
            {name: column[k] for name, column in columns.items() if k < len(column)}
            for k in range(len(self.about.joints))
        ]

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
            self._add(stages, STAGES[stage], of_stage[:, 2] - of_stage[:, 1])
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


def snapshot(view: View, now_ns: int) -> dict[str, Any]:
    """All that the page shows, as JSON has it."""
    with view.lock:
        vitals, frame = view.vitals, view.newest.get("frame")
        return {
            **{name: getattr(view.about, name) for name in _SHOWN},
            "silent_s": (now_ns - view.heard_ns) / 1e9,
            "safety": [
                {"ago_s": (now_ns - c.t_ns) / 1e9, "state": c.state, "reason": c.reason}
                for c in view.changes
            ],
            "picture": frame and frame.seq,
            "ages_ms": {age: view.ages[age].recent_ms() for age in AGES if age in view.ages},
            "stages_ms": {s: view.stages[s].recent_ms() for s in STAGES if s in view.stages},
            "rates_hz": {kind: rate.hz(now_ns) for kind, rate in view.rates.items()},
            "joints": view.joints(),
            "ticks": vitals and vitals.ticks,
            "missed_ticks": vitals and vitals.missed_ticks,
            "torque_fault": vitals and vitals.torque_fault,
        }


def _known(values: Vector) -> list[float | None]:
    return [None if math.isnan(value) else value for value in values.tolist()]
