"""The base of every model that v2a writes as JSON, and the row of a table of times."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from v2a.spans import Histogram

Number = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]
"""A measured figure. NaN means that nothing was measured; JSON has `null` for it."""


class Measured(BaseModel):
    """A result that is written as JSON: immutable, and an unknown key is a fault."""

    model_config = ConfigDict(frozen=True, extra="forbid")


def absent(description: str) -> Any:
    """A field that may be None, and whose key is then left out of the JSON."""
    return Field(default=None, exclude_if=lambda value: value is None, description=description)


class Times(Measured):
    """How long something took: one row of a table. All quantiles are within 1/32 of their value."""

    n: int = Field(description="number of durations")
    mean_ms: Number = Field(description="mean, ms")
    p50_ms: Number = Field(description="median, ms")
    p90_ms: Number = Field(description="90th percentile, ms")
    p99_ms: Number = Field(description="99th percentile, ms")
    p999_ms: Number = Field(description="99.9th percentile, ms")
    max_ms: Number = Field(description="longest, ms")

    @classmethod
    def of(cls, histogram: Histogram) -> Times:
        """The row of `histogram`."""
        return cls.model_validate(histogram.summary_ms())


def times_table(rows: Mapping[str, Mapping[str, float]]) -> dict[str, Times]:
    """The rows of `Tracer.stage_table`, by stage."""
    return {name: Times.model_validate(row) for name, row in rows.items()}
