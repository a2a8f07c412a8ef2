"""The index of a sound file counts what a reader of all messages counts; damage is never hidden."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.recording.container import FileState, RawMessage, walk
from runtime.recording.index import counted
from tests.runtime.recording.messages import HEADER, chunk, recorder_of, state, summary


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("index") / "run"
    recorder = recorder_of(folder).open(HEADER)
    for seq in range(1, 40):
        recorder.offer(state(seq))
        recorder.offer(chunk(seq))
        recorder.drain()
    recorder.close(summary)
    return folder / "run.mcap"


def test_the_index_counts_what_a_reader_of_all_messages_counts(file: Path) -> None:
    read = [
        record
        for record in walk(file, FileState(file.name), None)
        if isinstance(record, RawMessage)
    ]
    found = counted(file)
    assert found is not None
    assert {topic: n for topic, n in found.messages.items() if n} == {"/state": 39, "/chunk": 39}
    assert found.first_ns == min(one.log_ns for one in read)
    assert found.last_ns == max(one.log_ns for one in read)
    assert sum(found.messages.values()) == len(read)


@given(data=st.data())
def test_no_index_vouches_for_a_file_with_a_changed_or_missing_byte(
    file: Path, data: st.DataObject
) -> None:
    whole = file.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    changed = file.with_name("changed.mcap")
    changed.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
    assert counted(changed) is None
    changed.write_bytes(whole[:at])
    assert counted(changed) is None
