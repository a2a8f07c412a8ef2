"""Spans: what they are about, what the GPU did, what kept a thread from running, NVTX."""

from __future__ import annotations

import ctypes
import hashlib
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from hw_drivers.cameras.camera import Frame
from runtime.camera_worker import CameraWorker
from runtime.engines.base import EngineFactory
from runtime.engines.fake import FakeEngine
from runtime.host.run_delay import SCHEDSTAT, ThreadMeter, ThreadTimes
from runtime.mailbox import FrameMsg, Mailboxes, Message
from runtime.policy.graphs import PolicyGraphs
from runtime.recording.reader import Recording
from runtime.threads import WorkerThreads, step_on_news
from runtime.workers import WORKERS
from tests.runtime.conftest import INDEX, SIZE, TASK, World, after_ms, fakes, rising, run_config
from v2a.bundle import Bundle, GraphSpec
from v2a.clock import FakeClock, MonotonicClock
from v2a.errors import ConfigError
from v2a.spans import SpanRing, Tracer

MS = 1_000_000
ROW = next(row for row in WORKERS if row.name == "system1")


def of_stage(rows: np.ndarray, stage: str) -> list[int]:
    """The `arg` of each span of the stage, oldest first."""
    return [int(row[3]) for row in rows if row[0] == INDEX[stage]]


def test_a_picture_is_named_by_the_frame_that_becomes_of_it(bundle: Bundle) -> None:
    clock, boxes, ring = FakeClock(start_ns=100), Mailboxes(), SpanRing()
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    # The camera's own numbers are not the runtime's; the second was taken before the reset.
    frames = iter([Frame(40, 10, 0, image), Frame(41, 20, 0, image), Frame(42, 60, 0, image)])
    camera: Any = SimpleNamespace(read=lambda timeout_s: next(frames), close=lambda: None)
    spec = bundle.manifest.cameras[0]
    worker = CameraWorker(camera, spec, run_config().camera, boxes, clock, ring)
    first = worker.step(0)
    boxes.reset(now_ns=50)
    assert worker.step(0) is None
    last = worker.step(0)
    assert first is not None
    assert last is not None
    rows = ring.drain()
    assert of_stage(rows, "capture") == [first.seq, 0, last.seq]
    assert of_stage(rows, "preprocess") == [first.seq, last.seq]


def test_a_span_is_about_the_frame_that_it_came_from_and_the_chunk_that_is_played(
    bundle: Bundle, tmp_path: Path
) -> None:
    delays = {"system1": after_ms(20), "system2": after_ms(150)}
    world = World(bundle, delays=delays, record_dir=tmp_path / "run")
    chunks: list[Message] = []
    conditions: list[Message] = []
    world.workers.mailboxes.chunk.taps.append(chunks.append)
    world.workers.mailboxes.condition.taps.append(conditions.append)
    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(1.0)
    spans = Recording(tmp_path / "run").spans()
    frames = [chunk.parent_seq for chunk in chunks]
    for stage in ("frame_encode", "observe", "denoise"):
        assert of_stage(spans["system1"], stage)[: len(frames)] == frames
    for stage in ("vae_spatial", "vae_motion", "vdm_spatial", "vdm_motion", "condition"):
        about = of_stage(spans["system2"], stage)
        assert about[: len(conditions)] == [condition.parent_seq for condition in conditions]
    assert of_stage(spans["system1"], "publish") == [chunk.seq for chunk in chunks]
    assert of_stage(spans["system2"], "publish") == [condition.seq for condition in conditions]
    assert conditions
    assert len(chunks) > 1
    played = of_stage(spans["control"], "tick")
    assert played[0] == 0  # none yet
    assert played == sorted(played)
    assert set(played) == {0, *(chunk.seq for chunk in chunks)}


class GpuEngine(FakeEngine):
    """Says of each run that the GPU took 3 ms of it."""

    def gpu_ms(self) -> float:
        return 3.0


def on_gpu(graph: GraphSpec, path: Path) -> FakeEngine:
    if graph.rate == "system2":
        return FakeEngine(graph, path)
    return GpuEngine(graph, path, function=rising if graph.name == "denoise" else None)


def test_gpu_time_is_kept_apart_from_the_time_that_the_thread_waited(bundle: Bundle) -> None:
    world = World(bundle, engines=on_gpu)
    with world.lockstep as lockstep:
        lockstep.arm()
        lockstep.run(0.5)
        summary = lockstep.summary()
    stages, gpu_stages = summary.stages, summary.gpu_stages
    assert set(gpu_stages) == {"instruction", "frame_encode", "observe", "denoise"}
    assert gpu_stages["denoise"].max_ms == 3.0
    assert gpu_stages["denoise"].n == stages["denoise"].n
    assert stages["denoise"].max_ms == 0.0  # a virtual clock


def test_a_gpu_span_ends_with_the_run_that_it_is_part_of(bundle: Bundle) -> None:
    ring = SpanRing()
    graphs = PolicyGraphs(bundle, FakeClock(start_ns=10 * MS), on_gpu)
    graphs.set_instruction(TASK, ring)
    assert ring.gpu.drain().tolist() == [[INDEX["instruction"], 7 * MS, 10 * MS, 0]]


def test_a_tracer_drains_gpu_rings_under_the_name_of_their_thread() -> None:
    tracer = Tracer()
    tracer.ring("system1").add(INDEX["denoise"], 0, 5)
    assert set(tracer.drain()) == {"system1"}
    tracer.ring("system1").gpu.add(INDEX["denoise"], 2, 5)
    assert {name: len(rows) for name, rows in tracer.drain().items()} == {
        "system1": 0,
        "gpu system1": 1,
    }


class Ranges:
    """Stands in for the package nvtx: what was entered and left."""

    def __init__(self) -> None:
        self.events: list[str] = []

    @contextmanager
    def _range(self, name: str, domain: str) -> Iterator[None]:
        self.events.append(f"{domain} > {name}")
        yield
        self.events.append(f"{domain} < {name}")

    def annotate(self, name: str, domain: str) -> Any:
        enter = self._range

        class Annotation:
            def __enter__(self) -> None:
                self._open = enter(name, domain)
                self._open.__enter__()

            def __exit__(self, *error: Any) -> None:
                self._open.__exit__(*error)

        return Annotation()


def test_nvtx_ranges_surround_each_run_of_a_graph(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    nvtx = Ranges()
    monkeypatch.setitem(sys.modules, "nvtx", nvtx)
    monkeypatch.setenv("V2A_NVTX", "1")

    def noted(feeds: object) -> dict[str, np.ndarray]:
        nvtx.events.append("ran")
        return {}

    engines: EngineFactory = fakes(instruction=noted)
    PolicyGraphs(bundle, FakeClock(), engines).set_instruction(TASK, SpanRing())
    assert nvtx.events == ["v2a > instruction", "ran", "v2a < instruction"]


def test_nvtx_is_not_looked_for_unless_asked_for(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "nvtx", None)
    monkeypatch.delenv("V2A_NVTX", raising=False)
    PolicyGraphs(bundle, FakeClock(), fakes()).warm()
    monkeypatch.setenv("V2A_NVTX", "1")
    with pytest.raises(ConfigError, match=r"V2A_NVTX is set, but .* pip install nvtx"):
        PolicyGraphs(bundle, FakeClock(), fakes())


def in_thread(work: Callable[[], None]) -> ThreadMeter:
    """Run `work` in a thread; its meter."""
    meters = []

    def run() -> None:
        meters.append(ThreadMeter())
        work()
        meters[0].close()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    return meters[0]


def burn() -> None:
    """A quarter of a second of CPU without the GIL."""
    hashlib.pbkdf2_hmac("sha256", b"", b"", 300_000)


needs_schedstat = pytest.mark.skipif(not SCHEDSTAT.exists(), reason="this kernel has none")


@needs_schedstat
def test_cpu_time_is_the_threads_own() -> None:
    by_python = []

    def work() -> None:
        burn()
        by_python.append(time.thread_time())

    times = in_thread(work).times()
    assert times.cpu_s is not None
    assert times.run_delay_ms is not None
    # The kernel's account of a running thread is as old as the last timer tick.
    assert times.cpu_s == pytest.approx(by_python[0], abs=0.02)
    assert times.run_delay_ms >= 0.0


@needs_schedstat
def test_two_threads_on_one_core_wait_for_each_other() -> None:
    core = min(os.sched_getaffinity(0))
    begin = threading.Barrier(2)
    meters = []

    def work() -> None:
        os.sched_setaffinity(0, {core})
        begin.wait()
        burn()

    threads = [threading.Thread(target=lambda: meters.append(in_thread(work))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    times = [meter.times() for meter in meters]
    waited_s = sum(each.run_delay_ms or 0.0 for each in times) / 1e3
    assert waited_s > 0.5 * min(each.cpu_s or 0.0 for each in times) > 0.0


class Silent:
    """A worker that takes what comes and says nothing."""

    name = "system1"
    ring = SpanRing()

    def step(self, now_ns: int) -> None:
        return None


def test_a_thread_that_keeps_the_gil_after_it_published_is_seen_by_the_one_that_waited() -> None:
    keep_gil_us = ctypes.PyDLL(None).usleep  # a call by PyDLL keeps it
    threads, boxes, clock = WorkerThreads(), Mailboxes(), MonotonicClock()
    image = np.zeros((SIZE, SIZE, 3), np.uint8)
    inbox: Any = boxes.frame
    outbox: Any = boxes.chunk
    threads.start(ROW.name, step_on_news(Silent(), inbox, outbox, clock))
    seq = 0
    while threads.thread_times().get(ROW.name, ThreadTimes()).gil_wait is None:  # not waiting yet
        seq += 1
        inbox.put(FrameMsg(seq, 0, 0, 0, 0, image, ()), clock.now_ns())
        keep_gil_us(20_000)
        time.sleep(0.001)
    threads.stop(ROW.name)
    waits = threads.thread_times()[ROW.name].gil_wait
    assert waits is not None
    assert waits.max_ms > 10.0


def test_the_crew_remembers_the_times_of_threads_that_ended() -> None:
    threads, ran = WorkerThreads(), threading.Event()

    def loop(stopping: Callable[[], bool]) -> None:
        ran.set()
        while not stopping():
            time.sleep(0.001)

    threads.start(ROW.name, loop)
    ran.wait()
    threads.stop(ROW.name)
    times = threads.thread_times()[ROW.name]
    assert threads.thread_times()[ROW.name] == times
    if SCHEDSTAT.exists():
        assert set(times.model_dump()) == {"cpu_s", "run_delay_ms"}
        assert (times.cpu_s or 0.0) > 0.0
