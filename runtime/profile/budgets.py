"""Budgets: limits for the times of stages and the ages of data, read from a YAML file."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np
from pydantic import PositiveFloat, RootModel, create_model, model_validator

from runtime.config.robot_yaml import RunConfig
from runtime.profile.statistics import QUANTILES, Series, times_of
from runtime.profile_model import BudgetRow, BudgetVerdict
from v2a.config import Strict, faults_of_keys, load_yaml, suggest
from v2a.names import AGES, SYSTEM1, Rate, in_table_order

# From the middle of the distribution to its tail. The last one given also limits single events.
LIMITS: Final = ("mean_ms", *QUANTILES, "max_ms")

Budgets = dict[str, dict[str, float]]  # stage or age -> quantile, one of `LIMITS` -> ms

_Limit = create_model(  # type: ignore[call-overload]  # fields by name, from the table
    "Limit", __base__=Strict, **dict.fromkeys(LIMITS, (PositiveFloat | None, None))
)


def load_budgets(path: Path, stages: Sequence[str]) -> Budgets:
    """Read a budgets file: stage or age -> quantile -> limit in ms.

    Raises ConfigError with the line of a misspelt quantile, and of a name that is no age and none
    of the `stages` of the run.
    """
    known = [*in_table_order(stages), *AGES]

    class File(RootModel[dict[str, _Limit | None]]):
        @model_validator(mode="after")
        def _known(self) -> File:
            faults = [(what, _no_such(what, known)) for what in self.root if what not in known]
            if faults:
                raise faults_of_keys(faults)
            return self

    return dict(load_yaml(path, File).model_dump(exclude_none=True))


def default_budgets(config: RunConfig, horizon_ms: float, rates: Mapping[str, Rate]) -> Budgets:
    """The limits that follow from robot.yaml, for chunks that last `horizon_ms` (may be infinite).

    `rates` has the rate of each graph. A stage must fit into its worker's period. A picture must
    not be older than the length of the chunk that is made from it, or nothing of the chunk is left
    to play.
    """
    frame_ms, tick_ms = config.frame_period_ns / 1e6, config.control_period_ns / 1e6
    system1_ms, system2_ms = 1e3 * config.system1.period_s, 1e3 * config.system2.period_s
    bus_ms = min(1e3 * config.robot.bus.budget_s, tick_ms)
    limits = {
        "preprocess": ("p99_ms", frame_ms),
        **{name: ("p99_ms", system1_ms) for name, rate in rates.items() if rate in SYSTEM1},
        "tick": ("p999_ms", tick_ms),
        "bus_read": ("p99_ms", bus_ms),
        "bus_write": ("p99_ms", bus_ms),
        "condition_age": ("p99_ms", 1e3 * config.system2.soft_age_s),
        "frame_to_motor": ("p99_ms", horizon_ms),
    }
    if system2_ms:
        slow = [name for name, rate in rates.items() if rate == "system2"]
        limits |= dict.fromkeys(slow, ("p99_ms", system2_ms))
    return {what: {name: limit} for what, (name, limit) in limits.items() if math.isfinite(limit)}


def event_limit_ms(budgets: Budgets, what: str) -> float | None:
    """The limit for a single event of the stage or age `what`, in ms; None without a budget.

    This is the limit of the farthest quantile that has one.
    """
    limits = budgets.get(what, {})
    return next((limits[name] for name in reversed(LIMITS) if name in limits), None)


def judge(budgets: Budgets, samples_ms: Mapping[str, Series]) -> BudgetVerdict:
    """Compare each budget with the samples, float64 [n] in ms, of its stage or age.

    A budget without samples is left out.
    """
    rows = tuple(
        BudgetRow(
            what=what, quantile=name, limit_ms=limit_ms, found_ms=found_ms, ok=found_ms <= limit_ms
        )
        for what, limits in budgets.items()
        for name, limit_ms in limits.items()
        if math.isfinite(found_ms := _quantile_ms(samples_ms, what, name))
    )
    broken = [row for row in rows if not row.ok]
    return BudgetVerdict(ok=not broken, verdict=_sentence(rows, broken), rows=rows)


def misses(values_ms: Series, limit_ms: float | None) -> int | None:
    """The number of values, float64 [n], over the limit; None without a limit."""
    return None if limit_ms is None else int(np.count_nonzero(values_ms > limit_ms))


def _no_such(what: str, known: list[str]) -> str:
    return f"the run has no such stage, {suggest(what, known)}"


def _quantile_ms(samples_ms: Mapping[str, Series], what: str, name: str) -> float:
    return float(getattr(times_of(samples_ms.get(what, np.array([]))), name))


def _sentence(rows: Sequence[BudgetRow], broken: Sequence[BudgetRow]) -> str:
    if not rows:
        return "no budget was tested"
    if not broken:
        return f"all {len(rows)} budgets are kept"
    named = ", ".join(
        f"{row.what} {row.quantile.removesuffix('_ms')} {row.found_ms:.3g} ms "
        f"(limit {row.limit_ms:g})"
        for row in sorted(broken, key=lambda row: -row.found_ms / row.limit_ms)
    )
    return f"{len(broken)} of {len(rows)} budgets are broken: {named}"
