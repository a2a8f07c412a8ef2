"""Quantiles against numpy's, and intervals that hold what they promise on what remembers itself."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.profile.statistics import (
    FEWEST,
    Series,
    block_length,
    histogram,
    paired_ratio,
    ratio,
    times_of,
    typical,
)
from v2a.measured import NEEDED
from v2a.spans import COLUMNS

LATENCY = st.floats(1e-3, 1e4)
LATENCIES = st.lists(LATENCY, min_size=1, max_size=200).map(np.array)


def remembering(seed: int, count: int = 400, memory: float = 0.9) -> Series:
    """Latencies around 10 ms, each near the one before."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=count) * 0.1 * math.sqrt(1 - memory**2)
    logs = [0.0]
    for step in noise:
        logs.append(memory * logs[-1] + step)
    series: np.ndarray = 10 * np.exp(np.array(logs[1:]))
    return series


@given(LATENCIES)
def test_quantiles_are_values_that_occurred_in_order(values: Series) -> None:
    row = times_of(values)
    assert tuple(row.model_dump(exclude={"few"})) == COLUMNS
    assert row.few == tuple(name for name, n in NEEDED.items() if len(values) < n)
    found = [row.p50_ms, row.p90_ms, row.p99_ms, row.p999_ms, row.max_ms]
    assert found == sorted(found)
    assert set(found) <= set(values.tolist())
    assert row.n == len(values)
    assert np.sum(values <= row.p90_ms) >= 0.9 * len(values)


@given(LATENCIES)
def test_a_histogram_counts_everything(values: Series) -> None:
    found = histogram(values)
    assert sum(found.counts) == len(values)
    assert len(found.edges_ms) == len(found.counts) + 1
    assert list(found.edges_ms) == sorted(found.edges_ms)


def test_nothing_measured_is_not_a_number_and_no_error() -> None:
    none = np.array([])
    assert math.isnan(times_of(none).p50_ms)
    assert histogram(none).counts == histogram(none).edges_ms == ()
    assert ratio(none, none).low == 0.0


@given(st.lists(LATENCY, min_size=FEWEST, max_size=200).map(np.array), st.floats(0.1, 10))
def test_a_ratio_is_what_everything_was_multiplied_by(values: Series, factor: float) -> None:
    found = ratio(factor * values, values)
    assert found.ratio == pytest.approx(factor)
    assert found.low <= found.ratio <= found.high
    mirrored = ratio(values, factor * values)
    assert mirrored.low == pytest.approx(1 / found.high)


def test_typical_does_not_jump_between_two_speeds() -> None:
    def mixed(slow: int) -> Series:
        return np.array([10.0] * (100 - slow) + [20.0] * slow)

    assert np.median(mixed(51)) / np.median(mixed(49)) == 2
    assert typical(mixed(51)) / typical(mixed(49)) < 1.02


def test_95_percent_intervals_hold_in_95_of_100_although_the_series_remember() -> None:
    pairs = [(remembering(2 * k), remembering(2 * k + 1)) for k in range(100)]
    held = sum(found.low <= 1 <= found.high for found in (ratio(a, b) for a, b in pairs))
    assert held >= 95
    # As if the samples were independent, a third of the intervals would be wrong.
    rng = np.random.default_rng(0)
    naive = 0
    for a, b in pairs:
        drawn = [
            typical(rng.choice(a, len(a))) / typical(rng.choice(b, len(b))) for _ in range(100)
        ]
        low, high = np.quantile(drawn, [0.025, 0.975])
        naive += low <= 1 <= high
    assert naive < 80


def test_what_both_of_a_pair_share_is_not_in_their_interval() -> None:
    mood = remembering(0, memory=0.99)
    rng = np.random.default_rng(1)
    a, b = (mood * np.exp(0.01 * rng.normal(size=len(mood))) for _ in range(2))
    apart, together = ratio(b, a), paired_ratio(b, a)
    assert together.ratio == pytest.approx(apart.ratio, rel=0.01)
    assert together.low < 1 < together.high
    assert together.high - together.low < 0.1 * (apart.high - apart.low)


def test_blocks_are_as_long_as_the_memory() -> None:
    independent = np.random.default_rng(0).random(1000)
    assert block_length(independent) == 10
    assert block_length(remembering(0, 1000, memory=0.95)) > 30
    assert block_length(np.arange(1000.0)) == 125  # a trend: as long as they may be
