"""Processes of a policy that do nothing but record.

`python -m tests.runtime.recording.feeder FOLDER...` forks one for each folder, which is quicker
than importing everything anew.

Each offers states at 50 Hz, pictures, conditions and chunks at 10 Hz, and spans of all of them, to
FOLDER/run. FOLDER/counts holds how many were offered, true whenever the process is killed. SIGINT
ends it, with a summary.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from runtime.mailbox import Message
from runtime.recording.link import RecorderProcess
from runtime.recording.recorder import Recorder, record_loop
from runtime.safety.safety import SafetyRecord
from tests.runtime.recording.messages import HEADER, chunk, condition, frame, state, summary, vitals
from v2a.spans import STAGE_INDEX, Tracer

TOPICS = ("/state", "/frame", "/condition", "/chunk")
# Slots of FOLDER/counts, int64: those of each topic, and
SPANS, POLICY_PID, RECORDER_PID, SLOTS = range(len(TOPICS), len(TOPICS) + 4)


def main() -> None:
    for folder in sys.argv[1:]:
        if os.fork() == 0:
            feed(Path(folder))
            return
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    codes = [os.waitstatus_to_exitcode(os.wait()[1]) for _ in sys.argv[1:]]
    sys.exit(max(codes))


def feed(folder: Path) -> None:
    counts = np.memmap(folder / "counts", np.int64, "r+")
    tracer, end = Tracer(), threading.Event()
    signal.signal(signal.SIGINT, lambda *_: end.set())
    recorder = Recorder(tracer, SafetyRecord(), folder / "run").open(HEADER)
    assert isinstance(recorder._transport, RecorderProcess)
    counts[POLICY_PID], counts[RECORDER_PID] = os.getpid(), recorder._transport.pid
    thread = threading.Thread(target=record_loop, args=(recorder, vitals, end.is_set))
    thread.start()
    ring, tick = tracer.ring("control"), 0
    due_s = time.monotonic()
    while not end.is_set():
        makers: tuple[Callable[[int], Message], ...] = (
            (state, frame, condition, chunk) if tick % 5 == 0 else (state,)
        )
        for index, make in enumerate(makers):
            start_ns = time.monotonic_ns()
            recorder.offer(make(int(counts[index]) + 1))
            counts[index] += 1
            ring.add(STAGE_INDEX["tick"], start_ns, time.monotonic_ns(), tick)
            counts[SPANS] += 1
        tick += 1
        due_s += 0.02
        time.sleep(max(due_s - time.monotonic(), 0.0))
    thread.join()
    recorder.close(lambda: summary(lost=recorder.dropped))


if __name__ == "__main__":
    main()
