"""The recorder process when something dies, fills up or hangs: what was recorded stays, it is said
once, and nobody waits.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from mcap.exceptions import McapError
from mcap.records import Channel, Message
from mcap.stream_reader import StreamReader

import runtime.recording.recorder
from runtime.recording.link import RecorderProcess
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.recording.recorder import Recorder, record_loop
from runtime.recording.sinks import SinkSpec
from runtime.safety.safety import SafetyRecord
from tests.conftest import REPOSITORY
from tests.runtime.recording import feeder
from tests.runtime.recording.messages import HEADER, state, summary, vitals
from tests.waiting import PATIENCE_S, until
from v2a.errors import ConfigError
from v2a.spans import Tracer

pytestmark = pytest.mark.real_time

ROUNDS, AT_ONCE = 20, 5  # mostly asleep
VICTIMS = (("recorder",), ("policy",), ("policy", "recorder"))
READABLE = 0.95
BATCH = 100


FEEDER = "tests.runtime.recording.feeder"


class Feeder:
    """One process of `tests.runtime.recording.feeder`, and the recorder process of it."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.run = folder / "run"
        self.counts = np.memmap(folder / "counts", np.int64, "w+", shape=(feeder.SLOTS,))

    @property
    def pids(self) -> dict[str, int]:
        slots = {"policy": feeder.POLICY_PID, "recorder": feeder.RECORDER_PID}
        return {name: int(self.counts[slot]) for name, slot in slots.items()}

    def offered(self) -> dict[str, int]:
        found = dict(zip(feeder.TOPICS, self.counts.tolist(), strict=False))
        return found | {"spans": int(self.counts[feeder.SPANS])}


class Feeders:
    """All in a process group of their own, as a terminal has it."""

    def __init__(self, folder: Path, number: int) -> None:
        self.each = [Feeder(folder / str(n)) for n in range(number)]
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "tests.runtime.recording.feeder",
                *(one.folder for one in self.each),
            ],
            cwd=REPOSITORY,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            start_new_session=True,
        )
        until(lambda: all(one.offered()["/chunk"] >= 5 for one in self.each))

    def signal(self, number: int) -> None:
        """To all of them and their recorder processes."""
        os.killpg(self.process.pid, number)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[int], Feeders]]:
    started: list[Feeders] = []

    def start_some(number: int) -> Feeders:
        started.append(Feeders(tmp_path, number))
        return started[-1]

    yield start_some
    for feeders in started:
        with suppress(ProcessLookupError):
            feeders.signal(signal.SIGKILL)
        feeders.process.wait()


def gone(pid: int) -> bool:
    """Dead, whether or not somebody has taken note of it."""
    try:
        return ") Z " in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return True


def readable(run: Path) -> Counter[str]:
    """Messages by topic, and spans, that the mcap package itself finds in all files of a run."""
    return sum((readable_in(file) for file in run.glob("run*.mcap")), Counter[str]())


def readable_in(file: Path) -> Counter[str]:
    """The same in one file, up to where it ends."""
    topics: dict[int, str] = {}
    counts: Counter[str] = Counter()
    with file.open("rb") as stream:
        try:
            for record in StreamReader(stream, validate_crcs=True).records:
                if isinstance(record, Channel):
                    topics[record.id] = record.topic
                elif isinstance(record, Message):
                    counts[topics[record.channel_id]] += 1
                    if topics[record.channel_id] == "/spans":
                        counts["spans"] += len(json.loads(record.data)["rows"])
        except (McapError, struct.error):  # the end, torn
            return counts
    return counts


@pytest.mark.alone  # how much is readable depends on how soon the recorder gets a core
@pytest.mark.parametrize("seed", range(ROUNDS // AT_ONCE))
def test_after_kill_9_at_a_random_time_19_of_20_messages_are_read_back(
    start: Callable[[int], Feeders], seed: int
) -> None:
    pytest.importorskip("cv2", reason="pictures are recorded with OpenCV")
    rng = random.Random(seed)
    feeders = start(AT_ONCE)
    ends_s = sorted(time.monotonic() + rng.uniform(1.0, 3.0) for _ in range(AT_ONCE))
    offered = []
    for number, (end_s, one) in enumerate(zip(ends_s, feeders.each, strict=True)):
        time.sleep(max(end_s - time.monotonic(), 0.0))
        offered.append(one.offered())
        for victim in VICTIMS[(seed + number) % len(VICTIMS)]:
            os.kill(one.pids[victim], signal.SIGKILL)
    for one, those in zip(feeders.each, offered, strict=True):
        until(lambda: gone(one.pids["recorder"]))  # noqa: B023
        found = readable(one.run)
        assert sum(found[kind] for kind in those) >= READABLE * sum(those.values()), (found, those)
        assert all(found[kind] >= READABLE * n - 1 for kind, n in those.items()), (found, those)
        assert Recording(one.run).summary() is None


def test_ctrl_c_in_the_terminal_ends_the_recording_whole(
    start: Callable[[int], Feeders], capfd: pytest.CaptureFixture[str]
) -> None:
    """The terminal sends it to every process of the group, an impatient operator twice."""
    feeders = start(1)
    feeders.signal(signal.SIGINT)
    feeders.signal(signal.SIGINT)
    assert feeders.process.wait(PATIENCE_S) == 0
    (one,) = feeders.each
    recording = Recording(one.run)
    assert recording.extent().whole
    assert to_json(recording.summary()) == to_json(summary(lost=0))  # NaN equals no NaN
    found = readable(one.run)
    assert {kind: found[kind] for kind in one.offered()} == one.offered()
    assert gone(one.pids["recorder"])
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("sign", [signal.SIGHUP, signal.SIGTERM])
def test_a_group_that_is_told_to_go_leaves_a_whole_file(
    start: Callable[[int], Feeders], sign: int
) -> None:
    """The feeder dies of it at once; the recorder process writes down what it was sent."""
    feeders = start(1)
    feeders.signal(sign)
    (one,) = feeders.each
    until(lambda: gone(one.pids["recorder"]))
    assert Recording(one.run).extent().whole
    assert Recording(one.run).summary() is None


class Recorded:
    """A recorder with its process, in the hands of a test."""

    def __init__(self, run: Path, *sinks: SinkSpec) -> None:
        self.run = run
        self.offered = 0
        self.recorder = Recorder(Tracer(), SafetyRecord(), run, sinks).open(HEADER)
        assert isinstance(self.recorder._transport, RecorderProcess)
        self.pid = self.recorder._transport.pid

    def offer(self, n: int = 1) -> None:
        for _ in range(n):
            self.offered += 1
            self.recorder.offer(state(self.offered))

    def goes_on_until_it_is_said(self) -> bool:
        self.offer(BATCH)
        self.recorder.drain()
        return self.recorder.fault is not None

    @property
    def readable(self) -> int:
        return readable(self.run)["/state"]


def test_a_disk_that_is_full_is_said_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notes = tmp_path / "notes"
    noting = SinkSpec("tests.runtime.recording.sinks:Noting", {"file": notes})
    one = Recorded(tmp_path / "run", noting)
    resource.prlimit(one.pid, resource.RLIMIT_FSIZE, (40_000, 40_000))
    until(one.goes_on_until_it_is_said)
    for _ in range(3):
        assert one.goes_on_until_it_is_said()
    one.recorder.close(lambda: summary(ticks=3))
    fault = f"{one.run}: recording stopped: File too large"
    assert one.recorder.fault == fault
    assert capsys.readouterr().err == f"warning: {fault}; the run goes on\n"
    assert one.readable > 0
    # A batch that is there, but not its index, is counted as lost.
    assert 0 <= one.readable + one.recorder.dropped - one.offered <= BATCH
    assert json.loads((one.run / "summary.json").read_text())["ticks"] == 3
    # The page in the browser needs no disk.
    assert notes.read_text().split() == ["StateMsg"] * one.offered + ["closed"]


def test_a_recorder_process_that_dies_is_said_once_and_the_run_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = Recorded(tmp_path / "run")
    until(lambda: one.goes_on_until_it_is_said() or one.readable > 0)
    os.kill(one.pid, signal.SIGKILL)
    until(one.goes_on_until_it_is_said)
    for _ in range(3):
        assert one.goes_on_until_it_is_said()
    one.recorder.close()
    fault = f"{one.run}: recording stopped: the recorder process died (exit code -9)"
    assert one.recorder.fault == fault
    assert capsys.readouterr().err == f"warning: {fault}; the run goes on\n"
    assert 0 < one.readable <= one.offered - one.recorder.dropped
    assert one.recorder.dropped >= 3 * BATCH


def test_nobody_waits_for_a_recorder_process_that_hangs_and_what_it_misses_is_counted(
    tmp_path: Path,
) -> None:
    one = Recorded(tmp_path / "run")
    os.kill(one.pid, signal.SIGSTOP)
    ended = threading.Event()
    thread = threading.Thread(target=record_loop, args=(one.recorder, vitals, ended.is_set))
    thread.start()
    while not one.recorder.dropped:
        one.offer(1000)
    assert one.recorder.stage_table(HEADER.stages) == {}  # a summary doesn't wait either
    os.kill(one.pid, signal.SIGCONT)
    ended.set()
    thread.join(PATIENCE_S)
    one.recorder.close()
    assert one.recorder.fault is None
    assert one.readable + one.recorder.dropped == one.offered


def test_a_recorder_process_that_hangs_at_the_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime.recording.recorder, "END_S", 0.2)
    one = Recorded(tmp_path / "run")
    os.kill(one.pid, signal.SIGSTOP)
    one.recorder.close(lambda: summary(ticks=3))
    assert gone(one.pid)
    assert one.recorder.fault == (
        f"{one.run}: recording stopped: the recorder process did not finish within 0.2 s and was "
        "killed; the disk or the machine is too busy"
    )
    assert json.loads((one.run / "summary.json").read_text())["ticks"] == 3


def test_a_sink_that_fails_ends_alone(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    one = Recorded(tmp_path / "run", SinkSpec("tests.runtime.recording.sinks:Failing"))
    one.offer(10)
    one.recorder.close()
    assert one.recorder.fault is None
    assert one.readable == 10
    err = capfd.readouterr().err
    assert err.count("RuntimeError: it fell over") == 1
    assert "warning: Failing failed and ended; the run goes on" in err


def test_a_sink_that_cannot_be_made_refuses_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="port 80 is taken; choose another"):
        Recorded(tmp_path / "run", SinkSpec("tests.runtime.recording.sinks:Refusing", {"port": 80}))
