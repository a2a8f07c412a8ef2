"""The trace of a run, opened by Perfetto's own trace processor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.convert import perfetto
from runtime.convert.perfetto import Slice, lanes, write_trace
from runtime.mailbox import ChunkMsg
from runtime.recording.reader import Recording
from tests.runtime.conftest import INDEX, STAGES, World, after_ms, write_tiny_bundle
from tests.runtime.convert.trace_processor import WasmTraceProcessor
from tests.runtime.recording.messages import HEADER
from v2a.bundle import load_bundle
from v2a.measured import Times
from v2a.spans import STAGE_INDEX

MS = 1_000_000
SYSTEM1 = ("frame_encode", "observe", "denoise")
SYSTEM2 = ("vae_spatial", "vae_motion", "vdm_spatial", "vdm_motion", "condition")
SEQ = "extract_arg(slice.arg_set_id, 'debug.seq')"


class Trace:
    """The trace of `recording`, by SQL."""

    def __init__(self, recording: Any, path: Path) -> None:
        write_trace(recording, path)
        self._processor = WasmTraceProcessor(trace=str(path))

    def __enter__(self) -> Trace:
        return self

    def __exit__(self, *_: object) -> None:
        self._processor.close()

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        return [tuple(vars(row).values()) for row in self._processor.query(sql)]

    def ids(self, stage: str, seq: int) -> list[int]:
        """Of the slices, by time."""
        where = f"name = '{stage}' and {SEQ} = {seq}"
        return [
            number for (number,) in self.rows(f"select id from slice where {where} order by ts")
        ]

    def arrows(self, way: str, slice_id: int) -> set[tuple[str, int]]:
        """(stage, seq) of all that arrows lead to from here (way "following") or come from."""
        end = {"following": "slice_in", "preceding": "slice_out"}[way]
        return set(
            self.rows(
                f"select slice.name as name, {SEQ} as seq from {way}_flow({slice_id}) as flow "
                f"join slice on slice.id = flow.{end}"
            )
        )


@dataclass
class Run:
    """Two seconds of the two-joint robot, armed, in lockstep."""

    folder: Path
    recording: Recording
    ages: dict[str, Times]  # as the run itself found them


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("traced")
    write_tiny_bundle(folder / "bundle", lambda graph, path: path.write_bytes(b"fake"))
    delays = {"system1": after_ms(20), "system2": after_ms(400)}
    world = World(load_bundle(folder / "bundle"), delays=delays, record_dir=folder / "run")
    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(2.0)
        ages = lockstep.summary().ages
    return Run(folder, Recording(folder / "run"), ages)


@pytest.fixture(scope="module")
def recording(run: Run) -> Recording:
    return run.recording


@pytest.fixture(scope="module")
def trace(run: Run) -> Iterator[Trace]:
    with Trace(run.recording, run.folder / "run.perfetto-trace") as opened:
        yield opened


def test_a_run_writes_every_stage(recording: Recording) -> None:
    written = np.concatenate([rows[:, 0] for rows in recording.spans().values()])
    assert {STAGES[stage] for stage in written.tolist()} == set(STAGES)


def test_every_span_is_a_slice_on_the_track_of_its_thread(
    recording: Recording, trace: Trace
) -> None:
    spans = {
        (thread, STAGES[stage], t0_ns, t1_ns - t0_ns, seq or None)
        for thread, rows in recording.spans().items()
        for stage, t0_ns, t1_ns, seq in rows.tolist()
        if STAGES[stage] != "capture"
    }
    found = trace.rows(
        f"select thread.name as thread, slice.name as name, ts, dur, {SEQ} as seq from slice "
        "join thread_track on track_id = thread_track.id join thread using (utid)"
    )
    assert {thread for thread, *_ in found} == {"main", "camera", "system2", "system1", "control"}
    assert set(found) == spans
    assert len(found) == len(spans)


def test_captures_have_a_track_of_their_own(recording: Recording, trace: Trace) -> None:
    rows = recording.spans()["camera"]
    expected = rows[rows[:, 0] == STAGE_INDEX["capture"]][:, [1, 3]].tolist()
    found = trace.rows(
        f"select ts, {SEQ} as seq from slice join track on track_id = track.id "
        "where track.name = 'capture' order by ts"
    )
    assert found == [tuple(row) for row in expected]


def test_arrows_lead_from_a_frame_to_the_tick_that_first_played_its_chunk(
    recording: Recording, trace: Trace
) -> None:
    control = recording.spans()["control"]
    played = set(control[control[:, 0] == STAGE_INDEX["tick"]][:, 3].tolist()) - {0}
    assert len(played) > 5
    for chunk in recording.chunks():
        if chunk.seq not in played:
            continue
        (capture,) = trace.ids("capture", chunk.parent_seq)
        path = {(stage, chunk.parent_seq) for stage in ("preprocess", *SYSTEM1)}
        path |= {("publish", chunk.seq), ("tick", chunk.seq), ("bus_write", chunk.seq)}
        assert path <= trace.arrows("following", capture)
        first, *others = trace.ids("tick", chunk.seq)
        assert ("capture", chunk.parent_seq) in trace.arrows("preceding", first)
        assert all(not trace.arrows("preceding", later) for later in others)


def test_arrows_lead_from_a_frame_through_system_2_to_each_chunk_that_used_its_condition(
    recording: Recording, trace: Trace
) -> None:
    frames = {condition.seq: condition.parent_seq for condition in recording.conditions()}
    used = Counter(chunk.condition_seq for chunk in recording.chunks())
    assert len(used) > 2
    assert max(used.values()) > 1
    for chunk in recording.chunks():
        (observe,) = trace.ids("observe", chunk.parent_seq)
        frame = frames[chunk.condition_seq]
        path = {(stage, frame) for stage in ("capture", "preprocess", *SYSTEM2)}
        path.add(("publish", chunk.condition_seq))
        before = trace.arrows("preceding", observe)
        assert path <= before
        assert {seq for stage, seq in before if stage == "condition"} == {frame}


def test_no_arrow_leads_back_in_time(trace: Trace) -> None:
    times = trace.rows(
        "select a.ts as a, b.ts as b from flow join slice a on a.id = slice_out "
        "join slice b on b.id = slice_in"
    )
    assert len(times) > 100
    assert all(begin <= end for begin, end in times)


def test_the_ages_are_counters_and_those_that_the_run_found(run: Run, trace: Trace) -> None:
    found = trace.rows(
        "select name, count(1) as n, max(value) as max_ms from counter "
        "join counter_track on track_id = counter_track.id where unit = 'ms' group by 1"
    )
    assert set(found) == {(name, age.n, age.max_ms) for name, age in run.ages.items()}


def test_the_safety_states_are_a_track(recording: Recording, trace: Trace) -> None:
    found = trace.rows(
        "select slice.name as name, ts from slice join track on track_id = track.id "
        "where track.name = 'safety' order by ts, slice.id"
    )
    assert found == [(f"{c.state}: {c.reason}", c.t_ns) for c in recording.safety()]


def test_the_trace_processor_finds_no_fault(trace: Trace) -> None:
    faults = "select name, value from stats where severity != 'info' and value > 0"
    assert trace.rows(faults) == []


def recorded(spans: dict[str, list[tuple[str, int, int, int]]], *chunks: ChunkMsg) -> Any:
    """What `write_trace` asks of a recording; times in ms."""
    rows = {
        thread: np.array([(INDEX[s], t0 * MS, t1 * MS, seq) for s, t0, t1, seq in spans])
        for thread, spans in spans.items()
    }
    return SimpleNamespace(
        header=SimpleNamespace(
            policy="tiny", dry_run=True, start_ns=0, log_ns=int, stages=STAGES, rates=HEADER.rates
        ),
        t0_ns=0,
        chunks=lambda: iter(chunks),
        conditions=lambda: iter(()),
        spans=lambda: rows,
        safety=list,
    )


def chunk(seq: int, frame: int, publish_ms: int) -> ChunkMsg:
    return ChunkMsg(seq, 0, publish_ms * MS, frame, 0, np.zeros((2, 1)), MS, 0)


def test_a_camera_whose_pictures_take_longer_than_its_period_is_shown_as_it_is(
    tmp_path: Path,
) -> None:
    captures = [("capture", 10 * n, 10 * n + 25, n + 1) for n in range(5)]
    late = [("preprocess", 10 * n + 25, 10 * n + 27, n + 1) for n in range(5)]
    fake = recorded({"camera": sorted(captures + late, key=lambda row: row[2])})
    with Trace(fake, tmp_path / "trace") as trace:
        found = trace.rows(f"select name, ts, dur, {SEQ} as seq from slice")
    expected = {(s, t0 * MS, (t1 - t0) * MS, seq) for s, t0, t1, seq in captures + late}
    assert set(found) == expected
    assert len(found) == len(expected)


def test_a_chunk_that_comes_when_the_tick_has_begun_leads_to_its_bus_write(tmp_path: Path) -> None:
    system1 = [("denoise", 0, 9, 7), ("publish", 11, 12, 1)]
    control = [("bus_write", 13, 14, 1), ("tick", 10, 15, 1), ("tick", 20, 25, 1)]
    fake = recorded({"system1": system1, "control": control}, chunk(1, frame=7, publish_ms=11))
    with Trace(fake, tmp_path / "trace") as trace:
        assert trace.arrows("following", trace.ids("denoise", 7)[0]) == {
            ("publish", 1),
            ("bus_write", 1),
        }


def test_what_the_gpu_did_is_a_track_without_arrows(tmp_path: Path) -> None:
    spans = {
        "system1": [("denoise", 0, 9, 7), ("publish", 11, 12, 1)],
        "gpu system1": [("denoise", 4, 9, 7)],
    }
    with Trace(recorded(spans, chunk(1, frame=7, publish_ms=11)), tmp_path / "trace") as trace:
        found = trace.rows(
            "select thread.name as thread, dur, (select count(1) from flow where slice_out = "
            "slice.id) as arrows from slice join thread_track on track_id = thread_track.id "
            "join thread using (utid) where slice.name = 'denoise'"
        )
    assert sorted(found) == [("gpu system1", 5 * MS, 0), ("system1", 9 * MS, 1)]


def test_a_trace_of_a_long_run_covers_its_first_part_and_says_so(
    recording: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(perfetto, "SLICES_MAX", 100)
    with Trace(recording, tmp_path / "trace") as trace:
        ((found, last_ns),) = trace.rows(
            "select count(1) as n, max(ts) as last from slice where name != 'safety' "
            f"and {SEQ} is not null"
        )
    assert 0 < found <= 100
    starts_ns = np.sort(np.concatenate([rows[:, 1] for rows in recording.spans().values()]))
    assert last_ns < starts_ns[100]
    assert "the trace covers the first" in capsys.readouterr().err


def test_a_trace_of_an_empty_recording_opens(tmp_path: Path) -> None:
    with Trace(recorded({}), tmp_path / "trace") as trace:
        assert trace.rows("select count(1) as n from slice") == [(0,)]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 10)), max_size=30))
def test_in_a_lane_two_slices_lie_in_each_other_or_apart(found: list[tuple[int, int]]) -> None:
    slices = [Slice("tick", t0, t0 + length, n) for n, (t0, length) in enumerate(found)]
    rows = lanes(slices)
    assert sorted(one for lane in rows for one in lane) == sorted(slices)
    for lane in rows:
        for n, later in enumerate(lane):
            for one in lane[:n]:
                assert one.t1_ns <= later.t0_ns or later.t1_ns <= one.t1_ns
