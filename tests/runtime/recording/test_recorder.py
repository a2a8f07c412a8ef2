"""The recorder: what it is offered is in the recording, and it is in nobody's way."""

from __future__ import annotations

import base64
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from mcap.reader import make_reader

from runtime.mailbox import ChunkMsg, FrameMsg, StateMsg
from runtime.recording.link import InProcess
from runtime.recording.messages import ERROR, LogLine, Reset, SafetyChange, Spans, to_json
from runtime.recording.reader import Recording
from runtime.recording.recorder import PICTURES_MAX, WAITING_MAX, Recorder
from runtime.safety.safety import Change, SafetyRecord, State
from tests.runtime.recording.messages import (
    HEADER,
    MS,
    chunk,
    condition,
    frame,
    head,
    picture,
    recorder_of,
    state,
    summary,
    vitals,
)
from v2a.errors import ConfigError
from v2a.spans import STAGE_INDEX, Tracer

TICK = STAGE_INDEX["tick"]


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return tmp_path / "run"


def test_what_was_drained_is_readable_without_closing(run: Path) -> None:
    tracer = Tracer()
    recorder = recorder_of(run, tracer).open(HEADER)
    recorder.offer(state(7))
    recorder.offer(chunk(8))
    tracer.ring("control").add(TICK, 10, 20, 5)
    recorder.drain()
    read = Recording(run)
    (one,) = read.states()
    assert one.seq == 7
    (made,) = read.chunks()
    np.testing.assert_array_equal(made.target_rad, chunk(8).target_rad)
    assert (made.condition_age_ns, made.condition_seq, made.state_seq) == (60 * MS, 7, 8)
    assert {name: rows.tolist() for name, rows in read.spans().items()} == {
        "control": [[TICK, 10, 20, 5]]
    }
    assert read.summary() is None
    assert not read.extent().whole
    recorder.close()


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    position_rad=arrays(np.float64, 2, elements=st.floats(width=64)),
    target_rad=arrays(np.float64, (4, 2), elements=st.floats(width=64)),
    t_ns=st.integers(0, 2**62),
)
def test_every_number_comes_back_to_the_bit(
    tmp_path_factory: pytest.TempPathFactory,
    position_rad: np.ndarray,
    target_rad: np.ndarray,
    t_ns: int,
) -> None:
    run = tmp_path_factory.mktemp("bits") / "run"
    recorder = recorder_of(run).open(HEADER)
    recorder.offer(StateMsg(1, t_ns, t_ns, 0, 0, position_rad, position_rad))
    recorder.offer(ChunkMsg(1, t_ns, t_ns, 0, 0, target_rad, 50, 60))
    recorder.close()
    (read,) = Recording(run).states()
    # JSON has no infinity: what is not finite comes back as NaN.
    np.testing.assert_array_equal(read.position_rad, finite(position_rad))
    assert read.t_capture_ns == t_ns
    (made,) = Recording(run).chunks()
    np.testing.assert_array_equal(made.target_rad, finite(target_rad))


def finite(values: np.ndarray) -> np.ndarray:
    return np.where(np.isfinite(values), values, np.nan)


def test_pictures_come_back_as_they_were_with_the_history_that_was_recorded(run: Path) -> None:
    pytest.importorskip("cv2", reason="pictures are recorded with OpenCV")
    recorder = recorder_of(run).open(HEADER)
    for seq in (1, 2, 4, 5):  # 3 was dropped
        recorder.offer(frame(seq))
    recorder.close()
    read = list(Recording(run).frames())
    assert [one.seq for one in read] == [1, 2, 4, 5]
    for one in read:
        np.testing.assert_array_equal(one.image, picture(one.seq))
    times_ms = [[t_ns // MS for t_ns, _ in one.history] for one in read]
    assert times_ms == [[10], [10, 20], [20, 40], [40, 50]]
    np.testing.assert_array_equal(read[-1].history[0][1], picture(4))


def test_another_reader_finds_every_topic_its_schema_and_the_metadata(run: Path) -> None:
    """The mcap package's, with its index and its checksums; PNG by Pillow."""
    image = pytest.importorskip("PIL.Image", reason="the other reader of PNG is Pillow")
    pytest.importorskip("cv2", reason="pictures are recorded with OpenCV")
    recorder = recorder_of(run).open(HEADER)
    fire = LogLine(7, ERROR, "on fire")
    for message in (frame(1), state(1), condition(1), chunk(1), fire, vitals()):
        recorder.offer(message)
    recorder.offer(Spans("camera", np.array([[0, 1, 2, 3]])))
    recorder.offer(SafetyChange(9, "hold", "armed"))
    recorder.offer(Reset(10, 1, "wave"))
    recorder.close(summary)
    with (run / "run.mcap").open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        index = reader.get_summary()
        found = {
            channel.topic: (schema.name, message.log_time, json.loads(message.data))
            for schema, channel, message in reader.iter_messages()
            if schema is not None and json.loads(schema.data)["title"] == schema.name
        }
        metadata = {one.name: json.loads(one.metadata["json"]) for one in reader.iter_metadata()}
    assert index is not None
    assert found.keys() == {one.topic for one in index.channels.values()}
    assert metadata == {
        "v2a": json.loads(to_json(HEADER)),
        "summary": json.loads(to_json(summary())),
    }
    name, t_ns, row = found["/frame"]
    assert (name, t_ns, row["format"]) == ("foxglove.CompressedImage", 11 * MS, "png")
    png = image.open(io.BytesIO(base64.b64decode(row["data"])))
    np.testing.assert_array_equal(np.asarray(png), picture(1))
    assert (found["/log"][2]["message"], found["/log"][2]["level"]) == ("on fire", 4)  # foxglove's
    assert found["/spans"] == ("v2a.Spans", 2, {"thread": "camera", "rows": [[0, 1, 2, 3]]})
    assert found["/state"][2]["command_rad"] == [0.3, None]
    assert "tensors" not in found["/condition"][2]


def test_when_it_is_behind_it_drops_and_counts(run: Path) -> None:
    recorder = recorder_of(run).open(HEADER)
    for seq in range(1, WAITING_MAX + 4):
        recorder.offer(state(seq))
    for seq in range(1, PICTURES_MAX + 3):
        recorder.offer(FrameMsg(*head(seq), np.zeros((2, 2, 3), np.uint8), ()))
    assert recorder.dropped == 3 + 2
    recorder.close()
    states = Recording(run).states()
    assert [one.seq for one in states] == list(range(1, WAITING_MAX + 1))


def test_a_condition_waits_without_its_megabytes(run: Path) -> None:
    recorder = recorder_of(run).open(HEADER)
    recorder.offer(condition(1))
    assert [one.tensors for one in recorder._all_waiting()] == [{}]  # type: ignore[attr-defined]
    recorder.close()


def test_changes_of_the_safety_state_are_recorded_once_each(run: Path) -> None:
    safety = SafetyRecord()
    recorder = Recorder(Tracer(), safety, run, transport=InProcess).open(HEADER)
    recorder.drain()
    safety.changes.append(Change(10, State.HOLD, "armed"))
    safety.changes.append(Change(20, State.ARMED, "following"))
    recorder.drain()
    safety.changes.append(Change(30, State.FAULT, "servo 2 is gone"))
    recorder.close()
    assert Recording(run).safety() == [
        SafetyChange(10, "hold", "armed"),
        SafetyChange(20, "armed", "following"),
        SafetyChange(30, "fault", "servo 2 is gone"),
    ]


def test_the_summary_is_at_the_end_and_beside_it(run: Path) -> None:
    recorder = recorder_of(run).open(HEADER)
    ended = summary(ticks=3)
    recorder.close(lambda: ended)
    read, beside = Recording(run).summary(), json.loads((run / "summary.json").read_text())
    assert to_json(read) == to_json(ended)
    assert (beside["ticks"], beside["late"]["max_ms"]) == (3, None)
    assert read is not None
    assert math.isnan(read.late.max_ms)
    assert Recording(run).extent().whole
    assert Recording(run).t0_ns == 5


def test_a_run_without_a_summary_ends_all_the_same(run: Path) -> None:
    recorder_of(run).open(HEADER).close()
    assert Recording(run).ended()
    assert Recording(run).summary() is None
    assert not (run / "summary.json").exists()


def test_without_a_folder_it_only_counts_stages() -> None:
    tracer = Tracer()
    recorder = recorder_of(None, tracer).open(HEADER)
    recorder.offer(state(1))
    tracer.ring("control").add(TICK, 10, 20)
    recorder.drain()
    tracer.ring("control").add(TICK, 30, 50)
    assert recorder.stage_table(HEADER.stages)["tick"]["n"] == 2
    recorder.close()
    assert recorder.dropped == 0


def test_json_that_every_reader_takes() -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5], "c": np.array([np.nan, 2.0])}
    assert json.loads(to_json(value)) == {"a": None, "b": [None, 1.5], "c": [None, 2.0]}


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't record there: File exists; name a new folder"):
        recorder_of(tmp_path).open(HEADER)
