"""A run of 10 s that never was, and its profile: every figure of it can be told beforehand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from runtime.config.robot_yaml import RunConfig
from runtime.mailbox import ChunkMsg, ConditionMsg
from runtime.profile_model import Profile
from runtime.recording.messages import SafetyChange
from tests.runtime.conftest import INDEX, STAGES, run_config

MS = 1_000_000
T0_NS = 5_000_000_000
PERIODS_MS = {"camera": 50.0, "system2": 300.0, "system1": 200.0, "control": 20.0}
COSTS_MS: dict[str, dict[str, float]] = {  # thread -> stage -> about how long it takes
    "camera": {"capture": 8.0, "preprocess": 0.6, "publish": 0.02},
    "system2": {
        "vae_spatial": 9.0,
        "vae_motion": 31.0,
        "vdm_spatial": 44.0,
        "vdm_motion": 96.0,
        "condition": 12.0,
        "publish": 0.02,
    },
    "system1": {"frame_encode": 14.0, "observe": 5.0, "denoise": 38.0, "publish": 0.03},
    "control": {"tick": 1.6, "bus_read": 1.1, "bus_write": 0.2},
}
BUDGETS_MS = {"denoise": 45.0, "tick": 10.0, "vdm_motion": 120.0}


@dataclass
class Plant:
    """`stage` of `thread` takes `extra_ms` longer the first time that it runs after `at_ms`; with
    the stage "" the thread does nothing for so long."""

    thread: str
    stage: str
    at_ms: float
    extra_ms: float


@dataclass(frozen=True)
class FakeHeader:
    """What a recording says of the run: its control loop runs at 50 Hz."""

    config: RunConfig
    stages: tuple[str, ...] = STAGES


@dataclass
class FakeRecording:
    """What `runtime.recording.reader.Recording` would give."""

    rows: dict[str, npt.NDArray[np.int64]]
    t0_ns: int = T0_NS
    header: FakeHeader = field(default_factory=lambda: FakeHeader(run_config()))
    changes: list[SafetyChange] = field(
        default_factory=lambda: [
            SafetyChange(T0_NS + 20 * MS, "armed", "asked to"),
            SafetyChange(T0_NS + 6_400 * MS, "hold", "no chunk"),
        ]
    )

    def spans(self) -> dict[str, npt.NDArray[np.int64]]:
        return self.rows

    def chunks(self) -> Iterator[ChunkMsg]:
        denoise = self.rows.get("system1", np.zeros((0, 4), np.int64))
        for seq, row in enumerate(denoise[denoise[:, 0] == INDEX["denoise"]].tolist(), 1):
            age_ns = (120 + seq * 37 % 180) * MS
            born_ns = row[1] - 30 * MS
            target = np.zeros((16, 2))
            yield ChunkMsg(seq, born_ns, row[2], row[3], 0, target, 50 * MS, age_ns)

    def conditions(self) -> Iterator[ConditionMsg]:
        rows = self.rows.get("system2", np.zeros((0, 4), np.int64))
        for seq, row in enumerate(rows[rows[:, 0] == INDEX["condition"]].tolist(), 1):
            yield ConditionMsg(seq, row[1], row[2], row[3], 0, {}, row[1])

    def safety(self) -> list[SafetyChange]:
        return self.changes


def make_recording(*plants: Plant, seconds: float = 10.0, seed: int = 0) -> FakeRecording:
    rng = np.random.default_rng(seed)
    threads = {
        name: _thread(name, seconds, [p for p in plants if p.thread == name], rng)
        for name in COSTS_MS
    }
    return FakeRecording(threads)


def _thread(
    name: str, seconds: float, plants: list[Plant], rng: np.random.Generator
) -> npt.NDArray[np.int64]:
    """Steps on the thread's grid; one that comes too late skips to the grid."""
    left = sorted(plants, key=lambda plant: plant.at_ms)
    rows: list[tuple[int, int, int, int]] = []
    due_ms, seq = 0.0, 0
    while due_ms < 1e3 * seconds:
        seq += 1
        at_ms = due_ms + rng.uniform(0.0, 0.2)
        extra: dict[str, float] = {}
        if left and left[0].at_ms <= due_ms:
            plant = left.pop(0)
            extra[plant.stage] = plant.extra_ms
            at_ms += extra.get("", 0.0)
        at_ms = _step(rows, name, at_ms, seq, extra, rng)
        due_ms = PERIODS_MS[name] * (1 + max(at_ms, due_ms) // PERIODS_MS[name])
    return np.array(sorted(rows, key=lambda row: row[2]), np.int64)  # in the order of their ends


def _step(
    rows: list[tuple[int, int, int, int]],
    name: str,
    at_ms: float,
    seq: int,
    extra: Mapping[str, float],
    rng: np.random.Generator,
) -> float:
    chunk, picture = max(round(at_ms - 120) // 200 + 1, 0), 1 + round(at_ms) // 50
    arg = {"control": chunk, "camera": seq}.get(name, picture)
    start_ms = at_ms
    for stage, cost_ms in COSTS_MS[name].items():
        if stage == "tick":
            continue
        took_ms = cost_ms * rng.uniform(1.0, 1.06) + extra.get(stage, 0.0)
        rows.append(_row(stage, at_ms, at_ms + took_ms, arg))
        at_ms += took_ms
    if name == "control":
        rows.append(_row("tick", start_ms, at_ms + 0.05, arg))
    return at_ms


def _row(stage: str, t0_ms: float, t1_ms: float, arg: int) -> tuple[int, int, int, int]:
    return INDEX[stage], T0_NS + round(t0_ms * MS), T0_NS + round(t1_ms * MS), arg


def quantiles(values_ms: npt.NDArray[np.float64]) -> dict[str, Any]:
    p50, p90, p99, p999 = np.quantile(values_ms, [0.5, 0.9, 0.99, 0.999]).tolist()
    return {
        "n": len(values_ms),
        "mean_ms": float(values_ms.mean()),
        "p50_ms": p50,
        "p90_ms": p90,
        "p99_ms": p99,
        "p999_ms": p999,
        "max_ms": float(values_ms.max()),
    }


def distribution(values_ms: npt.NDArray[np.float64]) -> dict[str, Any]:
    counts, edges = np.histogram(
        values_ms, np.geomspace(values_ms.min(), values_ms.max() * 1.01, 60)
    )
    histogram = {"edges_ms": edges.tolist(), "counts": counts.tolist()}
    return quantiles(values_ms) | {"histogram": histogram}


def _stage_rows(recording: FakeRecording) -> dict[str, dict[str, Any]]:
    found = {}
    for thread, rows in recording.rows.items():
        for index in np.unique(rows[:, 0]).tolist():
            stage, kind = STAGES[index], rows[rows[:, 0] == index]
            row = distribution((kind[:, 2] - kind[:, 1]) / 1e6)
            budget = BUDGETS_MS.get(stage)
            found[stage] = row | {
                "thread": thread,
                "period_ms": PERIODS_MS[thread],
                "share": row["mean_ms"] / PERIODS_MS[thread],
                "budget_ms": budget,
                "misses": None if budget is None else int(row["max_ms"] > budget),
            }
    return found


def _ages_ms(
    recording: FakeRecording, stage: str, column: int, born: str
) -> npt.NDArray[np.float64]:
    chunks = {chunk.seq: chunk for chunk in recording.chunks()}
    found = [
        (row[column] - getattr(chunks[row[3]], born)) / MS
        for row in recording.rows["control"].tolist()
        if row[0] == INDEX[stage] and row[3] in chunks
    ]
    return np.array(found)


def _condition_ages_ms(recording: FakeRecording) -> npt.NDArray[np.float64]:
    return np.array([chunk.condition_age_ns / MS for chunk in recording.chunks()])


def _age_row(values_ms: npt.NDArray[np.float64], budget_ms: float) -> dict[str, Any]:
    return distribution(values_ms) | {
        "budget_ms": budget_ms,
        "misses": int((values_ms > budget_ms).sum()),
    }


def _engine(p50_ms: float, slower: float) -> dict[str, Any]:
    def side(p50: float) -> dict[str, float]:
        return {"n": 200, "mean_ms": p50 * 1.02, "p50_ms": p50, "p90_ms": p50 * 1.1} | {
            "p99_ms": p50 * 1.4,
            "p999_ms": p50 * 1.7,
            "max_ms": p50 * 2.1,
        }

    return {"alone": side(p50_ms), "under_load": side(p50_ms * slower), "overhead_ms": 0.083}


def make_profile(recording: FakeRecording, **parts: Any) -> Profile:
    """The profile of `recording`, with other `parts` where they are given."""
    return Profile.model_validate(make_json(recording) | parts)


def make_json(recording: FakeRecording) -> dict[str, Any]:
    stages = _stage_rows(recording)
    rows: list[dict[str, Any]] = [
        {"what": "frame_to_motor", "quantile": "p99_ms", "limit_ms": 400.0, "found_ms": 351.7},
        {
            "what": "denoise",
            "quantile": "p99_ms",
            "limit_ms": 45.0,
            "found_ms": stages["denoise"]["p99_ms"],
        },
        {"what": "tick", "quantile": "p999_ms", "limit_ms": 10.0, "found_ms": 12.62},
    ]
    for row in rows:
        row["ok"] = row["found_ms"] <= row["limit_ms"]
    return {
        "schema_version": 1,
        "policy": "ring over puck",
        "engine": "ort",
        "seconds": 10.0,
        "others_cores": 0.12,
        "machine": {
            "cpu": "AMD EPYC 7B13",
            "cores": 2,
            "kernel": "6.18.0",
            "versions": {"python": "3.11.7", "onnxruntime": "1.32.0"},
            "realtime": {},
        },
        "stages": stages,
        "ages": {
            "condition_age": _age_row(_condition_ages_ms(recording), 1000.0),
            "chunk_age": _age_row(_ages_ms(recording, "tick", 1, "t_publish_ns"), 300.0),
            "frame_to_motor": _age_row(_ages_ms(recording, "bus_write", 2, "t_capture_ns"), 400.0),
        },
        "budgets": {
            "ok": False,
            "verdict": "1 of 3 budgets is over: tick p99.9 is 12.6 ms, 2.62 ms over its 10 ms.",
            "rows": rows,
        },
        "tail": {"verdict": "no thread stalled", "n": 0, "stalls": []},
        "gpu": {},
        "noise_floor": {
            "denoise": {"ratio": 1.004, "ci95": [0.991, 1.017]},
            "vdm_motion": {"ratio": 0.998, "ci95": [0.979, 1.022]},
        },
        "engines": {
            "frame_encode": _engine(9.1, 1.5),
            "observe": _engine(3.2, 1.55),
            "denoise": _engine(22.4, 1.7),
            "vdm_motion": _engine(71.0, 1.35),
        },
        "ticks": int((recording.rows["control"][:, 0] == INDEX["tick"]).sum()),
        "missed_ticks": {"late": 3, "bus": 1, "no_chunk": 12},
        "threads": {
            "system1": {
                "cpu_s": 3.71,
                "run_delay_ms": 620.1,
                "gil_wait": quantiles(np.array([0.002, 0.4, 6.7])),
            },
            "control": {"cpu_s": 0.62, "run_delay_ms": 43.1},
        },
        "memory": {"policy": {"resident_mib": 398.1, "peak_mib": 412.3}},
        "device": None,
        "layers": {
            "denoise": [
                {"module": "core.blocks.*.cross_attention", "share": 0.41, "ms": 15.6},
                {"module": "core.blocks.*.mlp", "share": 0.33, "ms": 12.5},
                {"module": "core.blocks.*.self_attention", "share": 0.19, "ms": 7.2},
                {"module": "head", "share": 0.07, "ms": 2.7},
            ],
            "vdm_motion": [
                {"module": "dit.blocks.*.attention", "share": 0.58, "ms": 41.0},
                {"module": "dit.blocks.*.mlp", "share": 0.42, "ms": 30.0},
            ],
        },
        "samples": {},
    }
