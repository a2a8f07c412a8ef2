"""Span rings and histograms, against numpy and against a plain list."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from v2a.names import in_table_order, stages_of
from v2a.spans import STAGE_INDEX, Histogram, SpanRing, Tracer

STAGES = stages_of(["see", "observe"])

durations_ns = st.lists(st.integers(0, 2**63 - 1), min_size=1, max_size=200)


def histogram_of(values: list[int]) -> Histogram:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    return histogram


@given(durations_ns, st.floats(0, 1))
def test_a_quantile_is_within_a_32nd_of_numpys(values: list[int], q: float) -> None:
    exact = sorted(values)[max(math.ceil(q * len(values)), 1) - 1]
    assert histogram_of(values).quantile(q) == pytest.approx(exact, rel=1 / 32)


def test_the_quantiles_of_a_real_distribution_agree_with_numpy() -> None:
    values = np.random.default_rng(0).lognormal(15, 1.5, 20_000).astype(np.int64)
    histogram = histogram_of(values.tolist())
    for q in (0.5, 0.9, 0.99, 0.999):
        exact = np.quantile(values, q, method="inverted_cdf")
        assert histogram.quantile(q) == pytest.approx(exact, rel=1 / 32)


@given(durations_ns)
def test_count_mean_and_max_are_exact(values: list[int]) -> None:
    histogram = histogram_of(values)
    assert histogram.count == len(values)
    assert histogram.max_ns == float(max(values))
    assert histogram.mean_ns == sum(values) / len(values)


@given(durations_ns, durations_ns)
def test_merging_is_observing_both(left: list[int], right: list[int]) -> None:
    merged = histogram_of(left)
    merged.merge(histogram_of(right))
    assert merged.summary_ms() == histogram_of(left + right).summary_ms()


def test_nothing_observed_is_nan_and_never_zero() -> None:
    summary = Histogram().summary_ms()
    assert summary.pop("n") == 0
    assert all(math.isnan(value) for value in summary.values())


def test_a_negative_duration_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be negative"):
        Histogram().observe(-1)


def test_the_summary_is_in_milliseconds() -> None:
    summary = histogram_of([2_000_000, 4_000_000]).summary_ms()
    assert summary["n"] == 2
    assert summary["mean_ms"] == 3.0
    assert summary["max_ms"] == 4.0
    assert summary["p50_ms"] == pytest.approx(2.0, rel=1 / 32)


@given(st.integers(1, 8), st.lists(st.integers(0, 20), max_size=10))
def test_a_ring_keeps_the_newest_and_counts_the_rest(capacity: int, bursts: list[int]) -> None:
    ring = SpanRing(capacity)
    written = 0
    kept = []
    for burst in bursts:
        for _ in range(burst):
            ring.add(1, written, written + 5, written)
            written += 1
        rows = ring.drain()
        assert rows.shape == (min(burst, capacity), 4)
        expected = range(written - len(rows), written)
        assert rows.tolist() == [[1, n, n + 5, n] for n in expected]
        kept.extend(rows[:, 3].tolist())
    assert len(kept) + ring.dropped == written


def test_draining_while_a_thread_writes_never_returns_a_torn_span() -> None:
    ring = SpanRing(capacity=64)
    total = 50_000

    def write() -> None:
        for n in range(total):
            ring.add(n, n, n, n)

    writer = threading.Thread(target=write)
    writer.start()
    seen: list[int] = []
    while writer.is_alive() or len(seen) + ring.dropped < total:
        rows = ring.drain()
        assert (rows == rows[:, :1]).all()
        seen.extend(rows[:, 0].tolist())
    writer.join()
    assert seen == sorted(set(seen))
    assert len(seen) + ring.dropped == total


def test_the_stage_table_gathers_all_threads_and_adds_up_over_calls() -> None:
    tracer = Tracer()
    system1, system2 = tracer.ring("system1"), tracer.ring("system2")
    assert tracer.ring("system1") is system1
    system1.add(STAGES.index("observe"), 0, 1_000_000)
    system2.add(STAGES.index("observe"), 0, 3_000_000)
    tracer.drain()
    assert tracer.stage_table(STAGES)["observe"]["n"] == 2
    system2.add(STAGE_INDEX["capture"], 0, 3_000_000)
    tracer.drain()
    table = tracer.stage_table(STAGES)
    assert list(table) == ["capture", "observe"]
    assert table["observe"]["mean_ms"] == 2.0
    assert tracer.dropped == 0


def test_the_machines_stages_keep_their_index_whatever_the_graphs_are() -> None:
    assert [STAGES[index] for index in STAGE_INDEX.values()] == list(STAGE_INDEX)


def test_tables_begin_with_the_picture_and_end_with_the_bus() -> None:
    assert sorted(in_table_order(STAGES)) == sorted(STAGES)
    assert in_table_order(STAGES) == (
        *("capture", "preprocess", "see", "observe", "publish"),
        *("tick", "bus_read", "bus_write"),
    )
