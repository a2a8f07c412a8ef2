"""A planted stall is named: its thread, its stage, its length; and so is a missed tick."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.report.findings import describe_stall, findings
from runtime.report.run_facts import read_run
from runtime.report.stalls import compare_with_grid, find_stalls
from runtime.report.timeline import SECOND_NS, chosen_second, timeline
from tests.runtime.conftest import STAGES
from tests.runtime.report.world import COSTS_MS, MS, PERIODS_MS, T0_NS, Plant, make_recording
from v2a.spans import STAGE_INDEX

PLACES = [
    (thread, stage)
    for thread, costs in COSTS_MS.items()
    for stage in [*costs, ""]
    if stage != "tick"  # its time is the sum of what is in it
]


@settings(deadline=None, max_examples=40)
@given(st.sampled_from(PLACES), st.floats(1_000, 9_000), st.integers(0, 1000))
def test_a_stall_of_50_ms_is_the_first_that_is_named(
    place: tuple[str, str], at_ms: float, seed: int
) -> None:
    thread, stage = place
    recording = make_recording(Plant(thread, stage, at_ms, 50.0), seed=seed)
    worst = find_stalls(recording.spans(), STAGES)[0]
    assert worst.thread == thread
    assert worst.excess_ms == pytest.approx(50.0, abs=6.0)
    assert 0 <= (worst.t1_ns - T0_NS) / MS - at_ms <= 2 * PERIODS_MS[thread] + worst.took_ms
    if stage:
        assert worst.stages == (stage,)
        assert describe_stall(worst).startswith(f"{thread}: {stage} took ")
    else:  # the thread stood still between two steps
        assert len(worst.stages) == 2
        assert describe_stall(worst).startswith(f"{thread}: silence of ")


@settings(deadline=None, max_examples=20)
@given(st.integers(0, 1000))
def test_nothing_is_named_in_a_run_without_a_stall(seed: int) -> None:
    assert find_stalls(make_recording(seed=seed).spans(), STAGES) == []


def test_the_chosen_second_holds_the_worst_stall_and_says_why() -> None:
    plants = Plant("system1", "denoise", 3_000, 40), Plant("control", "bus_read", 7_000, 70)
    run = read_run(make_recording(*plants))
    start_ns, why = chosen_second(run)
    assert run.stalls[0].stages == ("bus_read",)
    assert start_ns <= run.stalls[0].t0_ns < run.stalls[0].t1_ns <= start_ns + SECOND_NS
    assert "the worst stall" in why
    assert "control: bus_read took 71" in why
    assert "3 ticks missed" in findings(run)
    assert timeline(run).count('class="missed"') == 3 + 1  # and the legend


def test_a_stall_while_everything_starts_is_chosen_only_where_there_is_no_other() -> None:
    early, later = Plant("camera", "capture", 300, 90), Plant("system1", "observe", 6_000, 30)
    both = read_run(make_recording(early, later))
    start_ns, why = chosen_second(both)
    assert both.at_s(start_ns) == pytest.approx(5.5, abs=0.3)
    assert "after the first second" in why
    assert chosen_second(read_run(make_recording(early)))[0] == T0_NS


def test_what_stands_still_at_once_is_said_to() -> None:
    plants = [Plant(thread, "", 4_000, 60) for thread in ("camera", "control")]
    assert "at the same time" in findings(read_run(make_recording(*plants)))


@settings(deadline=None)
@given(
    period_ms=st.sampled_from([2, 5, 10, 20]),
    late_ms=st.lists(st.floats(0, 0.4), min_size=40, max_size=200),
    lost=st.sets(st.integers(1, 38), max_size=10),
    phase_ns=st.integers(0, 10**9),
)
def test_late_and_missed_ticks_are_found_against_a_grid_that_is_not_recorded(
    period_ms: int, late_ms: list[float], lost: set[int], phase_ns: int
) -> None:
    period_ns = period_ms * MS
    grid_ns = phase_ns + period_ns * np.arange(len(late_ms))
    late_ns = (np.array(late_ms) * period_ns).astype(np.int64)
    late_ns[0] = 0  # some tick is on time: else the grid can't be told
    kept = [k for k in range(len(late_ms)) if k not in lost]
    found = compare_with_grid((grid_ns + late_ns)[kept], period_ns)
    assert len(found.missed_ns) == len(lost)
    # Known up to the earliest ticks: 1 % of them, and a twentieth of a period.
    assert np.abs(found.missed_ns - grid_ns[sorted(lost)]).max(initial=0) < 0.41 * period_ns
    assert (found.late_ns <= late_ns[kept]).all()


def test_every_age_is_that_of_the_runtimes_own_definition() -> None:
    recording = make_recording()
    run = read_run(recording)
    chunks = {chunk.seq: chunk for chunk in recording.chunks()}
    rows = recording.rows["control"]
    writes = [row for row in rows.tolist() if STAGES[row[0]] == "bus_write" and row[3] in chunks]
    expected = [(row[2] - chunks[row[3]].t_capture_ns) / 1e6 for row in writes]
    found = run.ages["frame_to_motor"]
    assert sorted(found[:, 1]) == pytest.approx(sorted(expected))
    assert len(run.ages["condition_age"]) == len(chunks)
    ticks = rows[rows[:, 0] == STAGE_INDEX["tick"]]
    assert len(run.ages["chunk_age"]) == np.isin(ticks[:, 3], list(chunks)).sum()
