"""A long recording: its files, the numbers of its messages, and the room that it leaves."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from mcap.reader import make_reader

from runtime.recording import mcap_writer
from runtime.recording.mcap_writer import FILE_S, KEEP_BYTES, KEEP_SHARE
from runtime.recording.messages import INFO, LogLine
from runtime.recording.pieces import pieces_of
from runtime.recording.reader import Recording
from tests.runtime.recording.messages import HEADER, recorder_of, state, states_of, summary

STATE_MS = 10  # between two states of `messages.state`
GB = 1 << 30
Free = Callable[[int, int], None]


def names(run: Path) -> list[str]:
    return sorted(file.name for file in run.glob("*.mcap"))


def sequences(run: Path, topic: str) -> Iterator[int]:
    """The sequence of each message, in the order of the files, by another reader."""
    for file in pieces_of(run / "run.mcap")[0]:
        with file.open("rb") as content:
            for _, _, message in make_reader(content).iter_messages(topics=[topic]):
                yield message.sequence


def test_a_file_ends_after_its_time_and_the_recording_goes_on_in_the_next(tmp_path: Path) -> None:
    a_file = round(FILE_S * 1e3) // STATE_MS
    seqs = [1, a_file, a_file + 1, a_file + 2, 2 * a_file + 2, 2 * a_file + 3]
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    for seq in seqs:
        recorder.offer(state(seq))
        recorder.drain()
    recorder.close(summary)
    assert names(tmp_path / "run") == ["run.1.mcap", "run.2.mcap", "run.mcap"]
    assert [one.seq for one in states_of(tmp_path / "run")] == seqs
    extent = Recording(tmp_path / "run").extent()
    assert (extent.whole, extent.messages["/state"]) == (True, len(seqs))
    assert all(Recording(file).header == HEADER for file in (tmp_path / "run").glob("*.mcap"))


def test_a_file_ends_at_its_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mcap_writer, "FILE_BYTES", 64 * 1024)
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    for seq in range(1, 2001):
        recorder.offer(state(seq))
        if seq % 20 == 0:
            recorder.drain()
    recorder.close(summary)
    assert len(names(tmp_path / "run")) > 1
    assert max(file.stat().st_size for file in (tmp_path / "run").glob("*.mcap")) < 3 * 64 * 1024
    assert [one.seq for one in states_of(tmp_path / "run")] == list(range(1, 2001))


def test_every_message_has_a_number_that_goes_on_in_the_next_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A state has its own; a line of the log, which has none, is counted."""
    monkeypatch.setattr(mcap_writer, "FILE_BYTES", 1)  # each drain ends a file
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    for seq in (4, 5, 9):
        recorder.offer(state(seq))
        recorder.offer(LogLine(seq, INFO, "note"))
        recorder.drain()
    recorder.close(summary)
    assert len(names(tmp_path / "run")) == 4
    assert list(sequences(tmp_path / "run", "/state")) == [4, 5, 9]
    assert list(sequences(tmp_path / "run", "/log")) == [1, 2, 3]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Free:
    """Sets the size of the disk and its free bytes, in place of the real ones."""

    def is_now(total: int, free: int) -> None:
        usage = shutil._ntuple_diskusage(total, total - free, free)
        monkeypatch.setattr(shutil, "disk_usage", lambda path: usage)

    return is_now


@pytest.mark.parametrize(
    ("total", "kept"),
    [(500 * GB, KEEP_BYTES), (GB, round(KEEP_SHARE * GB))],
    ids=["a large disk", "a small disk"],
)
def test_a_recording_stops_while_the_disk_has_room_for_others(
    tmp_path: Path, disk: Free, capsys: pytest.CaptureFixture[str], total: int, kept: int
) -> None:
    disk(total, kept)
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    recorder.offer(state(1))
    recorder.drain()
    assert recorder.fault is None
    disk(total, kept - 1)
    recorder.offer(state(2))
    recorder.drain()
    said = f"MB are free on the disk, and {kept >> 20} MB are kept free"
    assert said in (recorder.fault or "")
    assert said in capsys.readouterr().err
    recorder.offer(state(3))
    recorder.drain()
    recorder.close(lambda: summary(lost=recorder.dropped))
    assert recorder.dropped == 1
    assert [one.seq for one in states_of(tmp_path / "run")] == [1, 2]
    assert Recording(tmp_path / "run").ended()
