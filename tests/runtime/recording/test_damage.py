"""Damaged, hostile and half-written files: said in one line, and only the bad part is lost."""

from __future__ import annotations

import json
import struct
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.mailbox import StateMsg
from runtime.recording.container import FileState
from runtime.recording.reader import Recording
from runtime.recording.topics import TOPICS
from tests.runtime.recording.messages import HEADER, chunk, recorder_of, state, summary
from v2a.cli import cli
from v2a.errors import ConfigError

BATCHES = 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """20 batches of five states and a chunk."""
    folder = tmp_path_factory.mktemp("damage") / "run"
    recorder = recorder_of(folder).open(HEADER)
    for batch in range(BATCHES):
        for n in range(5):
            recorder.offer(state(batch * 5 + n + 1))
        recorder.offer(chunk(batch + 1))
        recorder.drain()
    recorder.close(summary)
    return folder


def info(content: bytes, folder: Path) -> tuple[Result, Path]:
    file = folder / "damaged.mcap"
    file.write_bytes(content)
    return CliRunner().invoke(cli, ["record", "info", str(file), "--json"]), file


@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_byte_costs_one_chunk_and_is_said(
    run: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray((run / "run.mcap").read_bytes())
    byte = data.draw(st.integers(8, len(content) - 9))
    content[byte] ^= data.draw(st.integers(1, 255))
    result, file = info(bytes(content), run.parent)
    found = json.loads(result.stdout)
    assert result.exit_code == 9, found
    assert found["damaged"] >= 1
    assert found["messages"]["/state"] >= 5 * BATCHES - 5
    assert len(result.stderr.splitlines()) == 1
    states = [one.seq for one in Recording(file).states()]
    assert states == sorted(set(states))
    assert len(states) == found["messages"]["/state"]


@given(
    st.lists(st.tuples(st.floats(0, 1), st.binary(max_size=300), st.integers(0, 2000)), max_size=4)
)
@settings(max_examples=100, deadline=None)
def test_whatever_is_in_the_file_is_told_in_a_line(
    run: Path, cuts: list[tuple[float, bytes, int]]
) -> None:
    """Bytes are cut out and others put in, anywhere."""
    content = (run / "run.mcap").read_bytes()
    for place, put, cut in cuts:
        at = round(place * len(content))
        content = content[:at] + put + content[at + cut :]
    result, _ = info(content, run.parent)
    assert result.exit_code in (0, 2, 9), result.exception
    assert len(result.stderr.splitlines()) == (result.exit_code != 0)


def record_of(opcode: int, body: bytes, length: int | None = None) -> bytes:
    return struct.pack("<BQ", opcode, len(body) if length is None else length) + body


def chunk_of(size: int, compression: bytes, data: bytes) -> bytes:
    head = struct.pack("<QQQII", 0, 0, size, 0, len(compression)) + compression
    return record_of(6, head + struct.pack("<Q", len(data)) + data)


ZEROS = zstandard.compress(bytes(200 << 20))
LIES = {
    "a record of 2**60 bytes": record_of(6, b"", 2**60),
    "a record of 2**64 - 1 bytes": record_of(1, b"", 2**64 - 1),
    "a chunk that claims 2**60 bytes": chunk_of(2**60, b"zstd", ZEROS),
    "a zstd bomb": chunk_of(200 << 20, b"zstd", ZEROS),
    "a zstd bomb that claims little": chunk_of(100, b"zstd", ZEROS),
    "lz4": chunk_of(100, b"lz4", b"1"),
    "an unknown record": record_of(99, b"1234"),
}


@pytest.mark.parametrize("lie", list(LIES))
def test_a_lie_about_sizes_takes_no_memory_and_hides_nothing_behind_it(run: Path, lie: str) -> None:
    whole = (run / "run.mcap").read_bytes()
    at = whole.index(b"\x04\x00\x00\x00zstd", len(whole) // 2) - 37
    tracemalloc.start()
    result, _ = info(whole[:at] + LIES[lie] + whole[at:], run.parent)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 32 << 20
    assert (result.exit_code, json.loads(result.stdout)["messages"]["/state"]) == (9, 5 * BATCHES)


@pytest.mark.parametrize(
    "change",
    [
        {"t_capture_ns": 2**80},
        {"t_capture_ns": "now"},
        {"t_capture_ns": True},
        {"position_rad": "x"},
        {"position_rad": None},
        {"position_rad": [0.0] * 9},
        {"position_rad": [[0.0], [0.0, 1.0]]},
        {"evil": 1},
        {"seq": None},
    ],
)
def test_a_message_that_v2a_did_not_record_is_one_line(
    tmp_path: Path, change: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = TOPICS[StateMsg].row
    altered = replace(TOPICS[StateMsg], row=lambda message: recorded(message) | change)
    monkeypatch.setitem(TOPICS, StateMsg, altered)
    recorder = recorder_of(tmp_path / "run").open(HEADER)
    recorder.offer(state(1))
    recorder.close()
    with pytest.raises(
        ConfigError, match=r"a message of /state: number 1: .*v2a did not record"
    ) as fault:
        list(Recording(tmp_path / "run").states())
    assert "__init__" not in str(fault.value)
    assert "could not convert" not in str(fault.value)


def test_deep_nesting_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = b'{"seq":' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    monkeypatch.setattr(
        "runtime.recording.mcap_writer.to_json",
        lambda value: deep.decode() if "position_rad" in value else json.dumps({}),
    )
    recorder = recorder_of(tmp_path / "run")
    recorder.open(HEADER)
    recorder.offer(state(1))
    recorder.close()
    with pytest.raises(ConfigError):
        list(Recording(tmp_path / "run").states())


@given(st.lists(st.tuples(st.integers(0, 1000), st.integers(0, 1000)), min_size=2, max_size=6))
def test_a_damaged_place_ends_after_it_begins(chunks: list[tuple[int, int]]) -> None:
    """Several threads write one file, so a chunk may begin before the one ahead of it ends."""
    state = FileState("run.mcap")
    for number, times in enumerate(chunks):
        state.reached(min(times), max(times))
        if number < len(chunks) - 1:
            state.broken(number, "wrong checksum")
    assert len(state.damage) == len(chunks) - 1
    for place in state.damage:
        assert place.after_ns is not None
        assert place.before_ns is not None
        assert place.after_ns <= place.before_ns
