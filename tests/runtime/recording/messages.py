"""Messages to record, and the recorder that takes them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, StateMsg
from runtime.recording.header import Header
from runtime.recording.link import InProcess
from runtime.recording.messages import RunCounters
from runtime.recording.reader import Recording
from runtime.recording.recorder import Recorder
from runtime.safety.safety import SafetyRecord
from runtime.summary_model import CpuTime, Dropped, RunSummary, Spread
from tests.runtime.conftest import STAGES, manifest, run_config
from v2a.errors import ConfigError
from v2a.measured import Times
from v2a.spans import Histogram, Tracer

MS = 1_000_000
HEADER = Header(
    start_ns=5,
    config=run_config(instruction="wave"),
    policy="tiny",
    bundle="tiny",
    bundle_sha256="ab",
    provenance={},
    stages=STAGES,
    rates={graph.name: graph.rate for graph in manifest().graphs},
    seed=3,
    versions={"python": "3"},
)


def summary(ticks: int = 3, lost: int = 0) -> RunSummary:
    """The summary of a run in which nothing was measured but `ticks` and lost messages."""
    return RunSummary(
        robot="two",
        policy="tiny",
        seconds=1.0,
        stages={},
        gpu_stages={},
        ages={},
        ticks=ticks,
        missed_ticks={},
        late=Times.of(Histogram()),
        realtime={},
        seam_jumps_rad=Spread(n=0, mean=math.nan, p50=math.nan, p99=math.nan, max=math.nan),
        counts={},
        dropped=Dropped(messages_of_an_older_epoch=0, spans=0, recorded_messages=lost),
        safety=(),
        torque_fault=None,
        recording_fault=None,
        cpu=CpuTime(user_s=0.0, system_s=0.0),
        versions={},
    )


def head(seq: int) -> tuple[int, int, int, int, int]:
    return (seq, seq * 10 * MS, seq * 10 * MS + MS, seq - 1, 0)


def state(seq: int) -> StateMsg:
    return StateMsg(*head(seq), np.array([0.1, 0.2]) * seq, np.array([0.3, np.nan]))


def chunk(seq: int) -> ChunkMsg:
    return ChunkMsg(*head(seq), np.full((2, 2), 0.1 * seq), 50 * MS, 60 * MS, 7, seq)


def condition(seq: int) -> ConditionMsg:
    return ConditionMsg(*head(seq), {"video_kv": np.zeros(1_000_000)}, seq * 10 * MS)


def frame(seq: int, history: int = 3) -> FrameMsg:
    """A picture of noise and those of the frames before it."""
    past = range(max(seq - history + 1, 1), seq + 1)
    pictures = tuple((n * 10 * MS, picture(n)) for n in past)
    return FrameMsg(*head(seq), pictures[-1][1], pictures)


def vitals() -> RunCounters:
    return RunCounters(9, 3, {"late": 1}, {"system1": {"chunks": 2}}, None, None, 0)


def picture(seq: int) -> np.ndarray:
    return np.random.default_rng(seq).integers(0, 256, (12, 16, 3), np.uint8)


def recorder_of(folder: Path | None, tracer: Tracer | None = None) -> Recorder:
    """One without a process, not yet open."""
    return Recorder(tracer or Tracer(), SafetyRecord(), folder, transport=InProcess)


def states_of(run: Path) -> list[StateMsg]:
    """Those in the recording so far; a recording that has not begun has none."""
    try:
        return list(Recording(run).states())
    except ConfigError:
        return []
