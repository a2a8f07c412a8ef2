"""The recording: readable up to the last complete line, and never in anybody's way."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from runtime.mailbox import ChunkMsg, StateMsg
from runtime.record import WAITING_MAX, Recorder, read_lines, to_json
from v2a.errors import ConfigError
from v2a.spans import STAGE_INDEX, Tracer


def state(seq: int) -> StateMsg:
    return StateMsg(seq, 1, 2, 3, 0, np.array([0.1, 0.2]), np.array([0.3, 0.4]))


def test_what_was_drained_is_readable_without_closing(tmp_path: Path) -> None:
    tracer = Tracer()
    recorder = Recorder(tracer, tmp_path / "run").open()
    recorder.offer(state(7))
    recorder.offer(ChunkMsg(8, 1, 2, 3, 0, np.zeros((2, 2)), 50, 60))
    tracer.ring("control").add(STAGE_INDEX["tick"], 10, 20, 5)
    recorder.drain()
    (read,) = read_lines(tmp_path / "run" / "states.jsonl")
    assert (read["seq"], read["position_rad"], read["command_rad"]) == (7, [0.1, 0.2], [0.3, 0.4])
    (chunk,) = read_lines(tmp_path / "run" / "chunks.jsonl")
    assert (chunk["target_rad"], chunk["condition_age_ns"]) == ([[0, 0], [0, 0]], 60)
    assert list(read_lines(tmp_path / "run" / "spans.jsonl")) == [
        {"thread": "control", "stage": "tick", "t0_ns": 10, "t1_ns": 20, "arg": 5}
    ]
    recorder.close()


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    file = tmp_path / "states.jsonl"
    file.write_text('{"seq": 1}\n{"seq": 2}\n{"se')
    assert [row["seq"] for row in read_lines(file)] == [1, 2]


def test_when_it_is_behind_it_drops_and_counts(tmp_path: Path) -> None:
    recorder = Recorder(Tracer(), tmp_path / "run").open()
    for seq in range(WAITING_MAX + 3):
        recorder.offer(state(seq))
    assert recorder.dropped == 3
    recorder.close()
    rows = list(read_lines(tmp_path / "run" / "states.jsonl"))
    assert [row["seq"] for row in rows] == list(range(WAITING_MAX))


def test_without_a_folder_it_only_counts_stages() -> None:
    tracer = Tracer()
    recorder = Recorder(tracer, None).open()
    recorder.offer(state(1))
    tracer.ring("control").add(STAGE_INDEX["tick"], 10, 20)
    recorder.drain()
    tracer.ring("control").add(STAGE_INDEX["tick"], 30, 50)
    assert recorder.stage_table()["tick"]["n"] == 2
    recorder.close()


def test_json_that_every_reader_takes() -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5], "c": np.array([np.nan, 2.0])}
    assert json.loads(to_json(value)) == {"a": None, "b": [None, 1.5], "c": [None, 2.0]}


def test_a_full_disk_is_said_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recorder = Recorder(Tracer(), tmp_path / "run").open()
    recorder._files["states.jsonl"].close()
    with Path("/dev/full").open("a") as full, suppress(OSError):
        recorder._files["states.jsonl"] = full
        for seq in range(3):
            recorder.offer(state(seq))
            recorder.drain()
    recorder.close()
    assert recorder.fault == f"{tmp_path / 'run'}: recording stopped: No space left on device"
    assert recorder.dropped == 2  # those that came after it was known
    assert capsys.readouterr().err == f"warning: {recorder.fault}; the run goes on\n"


def test_a_folder_that_exists_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="can't record there: File exists; name a new folder"):
        Recorder(Tracer(), tmp_path).open()
