"""Reading a recording: a whole one, one that a crash tore anywhere, and what is none."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from runtime.recording.cli import record
from runtime.recording.messages import Spans
from runtime.recording.reader import Recording
from tests.runtime.recording.messages import HEADER, chunk, recorder_of, state, summary
from v2a.errors import ConfigError

BATCHES = 20


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """20 batches of five states and a chunk."""
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    for batch in range(BATCHES):
        for n in range(5):
            recorder.offer(state(batch * 5 + n + 1))
        recorder.offer(chunk(batch + 1))
        recorder.drain()
    recorder.close(summary)
    return tmp_path / "run"


def test_a_file_torn_at_any_byte_reads_up_to_there(run: Path, tmp_path: Path) -> None:
    whole = (run / "run.mcap").read_bytes()
    torn = tmp_path / "torn.mcap"
    torn.write_bytes(whole[:100])
    with pytest.raises(ConfigError, match="not a recording"):
        Recording(torn)
    found = []
    header_end = whole.index(b"crc32") + 30
    summary_end = whole.rindex(b"crc32") + 17
    for size in range(header_end, len(whole), 23):
        torn.write_bytes(whole[:size])
        recording = Recording(torn)
        assert (recording.summary() is None) == (size < summary_end)
        assert not recording.extent().whole
        states = [one.seq for one in recording.states()]
        assert states == list(range(1, len(states) + 1))
        assert len(states) == 5 * len(list(recording.chunks()))
        found.append(len(states))
    assert found == sorted(found)
    assert set(found) == {5 * n for n in range(BATCHES + 1)}


def test_a_file_of_zeros_behind_a_power_cut_reads_up_to_them(run: Path) -> None:
    file = run / "run.mcap"
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] + bytes(4096))
    assert 0 < len(list(Recording(run).states())) < 5 * BATCHES


@pytest.mark.parametrize("content", [None, b"", b"not at all", b"\x89MCAP0\r\n"])
def test_what_is_no_recording_is_refused_in_a_line(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "run.mcap").write_bytes(content)
    with pytest.raises(ConfigError, match=r"run.mcap: .+; name .+ its run.mcap"):
        Recording(tmp_path)


def test_info_of_a_folder_and_of_the_file_in_it(run: Path) -> None:
    found = json.loads(CliRunner().invoke(record, ["info", str(run), "--json"]).stdout)
    assert found["messages"]["/state"] == 5 * BATCHES
    assert found["messages"]["/chunk"] == BATCHES
    assert found["messages"]["/frame"] == 0
    assert (found["ended"], found["whole"]) == (True, True)
    assert found["seconds"] == pytest.approx(0.99)
    assert found["dropped"]["recorded_messages"] == 0
    assert (found["robot"], found["policy"], found["versions"]) == ("two", "tiny", {"python": "3"})
    same = CliRunner().invoke(record, ["info", str(run / "run.mcap"), "--json"])
    assert json.loads(same.stdout) == found
    text = CliRunner().invoke(record, ["info", str(run)]).stdout
    assert "two, tiny, 1.0 s, ended" in text
    assert "/state" in text


def test_spans_are_parsed_once_while_nothing_grows(tmp_path: Path) -> None:
    """A profile asks three times. A recording that goes on is read again."""
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    recorder.offer(Spans("camera", np.array([[0, 1, 2, 3]])))
    recorder.drain()
    recording = Recording(tmp_path / "run")
    assert recording.spans() is recording.spans()
    recorder.offer(Spans("camera", np.array([[0, 4, 5, 6]])))
    recorder.drain()
    assert recording.spans()["camera"].tolist() == [[0, 1, 2, 3], [0, 4, 5, 6]]
    recorder.close()


def test_info_of_a_recording_that_was_killed(run: Path) -> None:
    file = run / "run.mcap"
    file.write_bytes(file.read_bytes()[:3000])
    found = json.loads(CliRunner().invoke(record, ["info", str(run), "--json"]).stdout)
    assert (found["ended"], found["whole"], found["dropped"]) == (False, False, None)
    assert "did not end" in CliRunner().invoke(record, ["info", str(run)]).stdout


def test_a_header_of_another_version_is_refused_in_a_line(tmp_path: Path) -> None:
    later = HEADER.model_copy(update={"schema_version": 2})
    recorder_of(tmp_path / "run").open(later).close()
    with pytest.raises(ConfigError) as refused:
        Recording(tmp_path / "run")
    assert str(refused.value) == (
        f"{tmp_path / 'run' / 'run.mcap'}: its v2a record: schema_version: Input should be 1 "
        "(got 2); read it with the version of v2a that recorded it"
    )


def test_a_summary_of_another_version_is_refused_in_a_line(tmp_path: Path) -> None:
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    recorder.close(lambda: summary().model_copy(update={"schema_version": 2}))
    result = CliRunner().invoke(record, ["info", str(tmp_path / "run")])
    assert isinstance(result.exception, ConfigError)
    assert "its summary record: schema_version: Input should be 1 (got 2)" in str(result.exception)
