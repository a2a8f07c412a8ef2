"""Makes the profile of a run from its recording: stages, ages, budgets, stalls, threads."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from runtime.profile.budgets import Budgets, default_budgets, event_limit_ms, judge, misses
from runtime.profile.stalls import summarise_stalls
from runtime.profile.statistics import Series, histogram, times_of
from runtime.profile_model import BudgetedTimes, EngineTimes, Machine, Profile, StageTimes
from runtime.recording.header import Header
from runtime.recording.reader import Recording
from runtime.report.run_facts import RunFacts, read_run
from runtime.report.stalls import Rows
from runtime.summary_model import utc_text
from v2a.measured import Times
from v2a.names import SYSTEM1, graphs_of, in_table_order
from v2a.spans import GPU

SAMPLES: Final = 2048  # of each stage and age; comparisons use them

OF_A_TICK: Final = ("tick", "bus_read", "bus_write")


def profile_of_recording(recording: Recording, budgets: Budgets | None = None) -> Profile:
    """Make the profile of a recording. Parts that only a live measurement can fill are empty.

    Without `budgets`, the limits are those that follow from robot.yaml.
    """
    header = recording.header
    facts = read_run(recording)
    if budgets is None:
        budgets = default_budgets(header.config, _horizon_ms(recording), header.rates)
    spans, on_gpu = _stages(facts, gpu=False), _stages(facts, gpu=True)
    durations_ms = {name: _durations_ms(rows) for name, (_, rows) in spans.items()}
    ages_ms = {name: points[:, 1] for name, points in facts.ages.items()}
    stages = {
        name: _stage(durations_ms[name], threads, _period_ms(rows, header, name), budgets, name)
        for name, (threads, rows) in spans.items()
    }
    summary = recording.summary()  # None: the run was killed, or still goes on
    return Profile(
        started_utc=None if header.start_utc_ns is None else utc_text(header.start_utc_ns),
        dry_run=header.dry_run,
        damaged=recording.damaged(),
        policy=header.policy,
        seconds=(facts.t1_ns - facts.t0_ns) / 1e9,
        stages=stages,
        ages={name: _budgeted(values, budgets, name) for name, values in ages_ms.items()},
        gpu={name: times_of(_durations_ms(rows)) for name, (_, rows) in on_gpu.items()},
        engines={
            graph: EngineTimes(alone=None, under_load=_times(stages[graph]), overhead_ms=None)
            for graph in graphs_of(header.stages)
            if graph in stages
        },
        budgets=judge(budgets, durations_ms | ages_ms),
        tail=summarise_stalls(facts.stalls, facts.t0_ns),
        ticks=summary.ticks if summary else len(durations_ms.get("tick", ())),
        missed_ticks=summary.missed_ticks if summary else {},
        machine=Machine(versions=header.versions, realtime=summary.realtime if summary else {}),
        threads=(summary and summary.threads) or {},
        samples={name: _samples(values) for name, values in (durations_ms | ages_ms).items()},
    )


def _stages(facts: RunFacts, gpu: bool) -> dict[str, tuple[str, Rows]]:
    """Stage, in the order of tables -> its threads, and its spans in order of time, [n, 4]."""
    return {
        stage: (", ".join(of), _in_order(list(of.values())))
        for stage in in_table_order(facts.stages)
        if (of := _rows_of(facts, facts.stages.index(stage), gpu))
    }


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


def _times(row: StageTimes) -> Times:
    return Times.model_validate({name: getattr(row, name) for name in Times.model_fields})


def _budgeted(values_ms: Series, budgets: Budgets, name: str) -> BudgetedTimes:
    limit_ms = event_limit_ms(budgets, name)
    return BudgetedTimes(
        **times_of(values_ms).model_dump(),
        budget_ms=limit_ms,
        misses=misses(values_ms, limit_ms),
        histogram=histogram(values_ms),
    )


def _stage(
    values_ms: Series, threads: str, period_ms: float, budgets: Budgets, name: str
) -> StageTimes:
    times = _budgeted(values_ms, budgets, name)
    share = times.mean_ms / period_ms if period_ms else math.nan
    return StageTimes(**dict(times), thread=threads, period_ms=period_ms, share=share)


def _period_ms(rows: Rows, header: Header, name: str) -> float:
    """From robot.yaml, else the median time between two starts; NaN if the stage ran once."""
    if name in OF_A_TICK:
        return header.config.control_period_ns / 1e6
    if header.rates.get(name) in SYSTEM1:
        return 1e3 * header.config.system1.period_s
    return float(np.median(np.diff(rows[:, 1]))) / 1e6 if len(rows) > 1 else math.nan


def _samples(values_ms: Series) -> tuple[float, ...]:
    """At most `SAMPLES` of the values, evenly spaced, in order of time."""
    step = max(math.ceil(len(values_ms) / SAMPLES), 1)
    return tuple(values_ms[::step].round(5).tolist())


def _horizon_ms(recording: Recording) -> float:
    """The duration of a chunk's targets; infinite without a chunk."""
    chunk = next(iter(recording.chunks()), None)
    return math.inf if chunk is None else len(chunk.target_rad) * chunk.step_ns / 1e6
