"""The base of every model that v2a writes as JSON, and the row of a table of times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from v2a.spans import Histogram

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A measured figure. NaN means that nothing was measured; JSON has `null` for it."""


class Measured(BaseModel):
    """A result that is written as JSON: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def absent(description: str) -> Any:
    """A field that may be None, and whose key is then left out of the JSON."""
    return Field(default=None, exclude_if=lambda value: value is None, description=description)


NEEDED: Final = {"p50_ms": 2, "p90_ms": 10, "p99_ms": 100, "p999_ms": 1000}
"""Quantile -> how many durations carry it: with fewer, none lies beyond it."""


class Times(Measured):
    """How long something took: one row of a table. All quantiles are within 1/32 of their value."""

    n: int = Field(description="number of durations")
    mean_ms: Number = Field(description="mean, ms")
    p50_ms: Number = Field(description="median, ms")
    p90_ms: Number = Field(description="90th percentile, ms")
    p99_ms: Number = Field(description="99th percentile, ms")
    p999_ms: Number = Field(description="99.9th percentile, ms")
    max_ms: Number = Field(description="longest, ms")
    few: tuple[str, ...] = Field(
        default=(),
        exclude_if=lambda names: not names,
        description="the quantiles for which `n` is too small: no duration lies beyond them, so "
        "they are the longest or near it. p99 needs 100",
    )

    @model_validator(mode="before")
    @classmethod
    def _mark_few(cls, row: Any) -> Any:
        """Fill in `few`, also for rows that were written without it."""
        if not isinstance(row, dict) or "few" in row or not isinstance(row.get("n"), int):
            return row
        few = tuple(name for name, need in NEEDED.items() if 0 < row["n"] < need)
        return row | {"few": few}

    @classmethod
    def of(cls, histogram: Histogram) -> Times:
        """The row of `histogram`."""
        return cls.model_validate(histogram.summary_ms())


def times_table(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Times]:
    """The rows of `Tracer.stage_table`, by stage."""
    return {name: Times.model_validate(row) for name, row in rows.items()}
