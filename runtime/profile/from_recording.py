"""The profile of a run, made from its recording: stages, ages, budgets, threads."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np

from runtime.config.robot_yaml import RunConfig
from runtime.profile.budgets import (
    Budgets,
    default_budgets,
    event_limit_ms,
    judge,
    misses,
)
from runtime.profile.compare import SCHEMA
from runtime.profile.stalls import tail
from runtime.profile.statistics import Series, histogram, quantiles_ms
from runtime.recording.reader import Recording
from runtime.report.run_facts import RunFacts, read_run
from runtime.report.stalls import Rows
from v2a.names import STAGES
from v2a.spans import GPU

SAMPLES: Final = 2048  # of each stage, for comparisons

# The stages that keep a period of robot.yaml; all others have the one that was found.
PERIODS_MS: Final[Mapping[str, Callable[[RunConfig], float]]] = {
    **dict.fromkeys(("tick", "bus_read", "bus_write"), lambda run: run.control_period_ns / 1e6),
    **dict.fromkeys(("frame_encode", "observe", "denoise"), lambda run: 1e3 * run.system1.period_s),
}


def profile_of(recording: Recording, budgets: Budgets | None = None) -> dict[str, Any]:
    """profile.json without what only a live run can measure (see `runtime.profile.live`).

    `budgets`: those that robot.yaml promises, unless given.
    """
    run = recording.header.config
    facts = read_run(recording)
    if budgets is None:
        budgets = default_budgets(run, _horizon_ms(recording))
    stages = _stages(facts)
    ages = {name: points[:, 1] for name, points in facts.ages.items()}
    durations = {name: _durations_ms(rows) for name, (_, rows) in stages.items()}
    summary = ended.model_dump(mode="json") if (ended := recording.summary()) else {}
    return {
        "schema": SCHEMA,
        "policy": recording.header.policy,
        "seconds": (facts.t1_ns - facts.t0_ns) / 1e9,
        "stages": {
            name: _row(durations[name], budgets, name) | _rhythm(threads, rows, run, name)
            for name, (threads, rows) in stages.items()
        },
        "ages": {name: _row(values, budgets, name) for name, values in ages.items()},
        "gpu": {name: quantiles_ms(_durations_ms(rows)) for name, rows in _gpu_stages(facts)},
        "budgets": judge(budgets, durations | ages),
        "tail": tail(facts.stalls, facts.t0_ns),
        "ticks": summary.get("ticks", len(durations.get("tick", ()))),
        "missed_ticks": summary.get("missed_ticks", {}),
        "machine": {
            "versions": recording.header.versions,
            "realtime": summary.get("realtime", {}),
        },
        "threads": summary.get("threads", {}),
        "samples": {name: _samples(values) for name, values in (durations | ages).items()},
    }


def _stages(facts: RunFacts) -> dict[str, tuple[str, Rows]]:
    """Stage -> the threads that ran it, and its spans in order of time, in the order of STAGES."""
    return {
        stage: (", ".join(of), _in_order(list(of.values())))
        for index, stage in enumerate(STAGES)
        if (of := _rows_of(facts, index, gpu=False))
    }


def _gpu_stages(facts: RunFacts) -> list[tuple[str, Rows]]:
    found = ((stage, _rows_of(facts, index, gpu=True)) for index, stage in enumerate(STAGES))
    return [(stage, _in_order(list(of.values()))) for stage, of in found if of]


def _rows_of(facts: RunFacts, index: int, gpu: bool) -> dict[str, Rows]:
    return {
        thread: rows[rows[:, 0] == index]
        for thread, rows in facts.spans.items()
        if thread.startswith(GPU) is gpu and np.any(rows[:, 0] == index)
    }


def _in_order(parts: list[Rows]) -> Rows:
    rows = np.concatenate(parts)
    return rows[np.argsort(rows[:, 1], kind="stable")]


def _durations_ms(rows: Rows) -> Series:
    return np.asarray((rows[:, 2] - rows[:, 1]) / 1e6, np.float64)


def _row(values_ms: Series, budgets: Budgets, name: str) -> dict[str, Any]:
    limit_ms = event_limit_ms(budgets, name)
    return {
        **quantiles_ms(values_ms),
        "budget_ms": limit_ms,
        "misses": misses(values_ms, limit_ms),
        "histogram": histogram(values_ms),
    }


def _rhythm(threads: str, rows: Rows, run: RunConfig, name: str) -> dict[str, Any]:
    """Who runs it, how often, and the share of that time that it takes."""
    if name in PERIODS_MS:
        period_ms = PERIODS_MS[name](run)
    else:
        period_ms = float(np.median(np.diff(rows[:, 1]))) / 1e6 if len(rows) > 1 else math.nan
    share = float(_durations_ms(rows).mean()) / period_ms if period_ms else math.nan
    return {"thread": threads, "period_ms": period_ms, "share": share}


def _samples(values_ms: Series) -> list[float]:
    """Evenly thinned, in order of time."""
    step = max(math.ceil(len(values_ms) / SAMPLES), 1)
    return [float(ms) for ms in values_ms[::step].round(5)]


def _horizon_ms(recording: Recording) -> float:
    """For how long a chunk gives targets; infinite where there was none."""
    chunk = next(iter(recording.chunks()), None)
    return math.inf if chunk is None else len(chunk.target_rad) * chunk.step_ns / 1e6
