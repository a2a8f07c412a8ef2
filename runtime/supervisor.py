"""`Runtime`: runs the workers as threads of this process, started and stopped in order.

On a real robot, the control thread only forwards messages to and from the control process.
"""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from runtime.control.loop import Verb
from runtime.host.run_delay import ThreadTimes
from runtime.recording.messages import ERROR, FATAL, INFO, WARNING, LogLine, Reset
from runtime.recording.recorder import Recorder
from runtime.recording.sinks import SinkSpec
from runtime.summary import describe, now, summarise
from runtime.summary_model import RunSummary
from runtime.threads import WorkerThreads
from runtime.workers import WORKERS, Workers
from v2a.bounds import looser_than_default
from v2a.errors import CameraEnded, SafetyFault

# A thread waits for the GIL for about the switch interval. Python's default is 5 ms.
SWITCH_INTERVAL_S = 0.0005
POLL_S = 0.05


class Runtime:
    """Runs `workers` in real time and records into `record_dir`, a new folder, if it is given.

    `record_dir` may also be a function that makes the folder and returns it. The recorder process
    also feeds `sinks`. Use `Runtime` as a context manager, or call `start` and in every case
    `stop`. Nothing moves before `arm`. When a worker fails, the control process moves the arm to
    its safe pose, if it has one, and turns the torque off. The worker's error is raised unchanged
    by the next `wait` or `arm`, or at the end of the `with` block.
    """

    def __init__(
        self,
        workers: Workers,
        record_dir: Path | Callable[[], Path] | None = None,
        sinks: tuple[SinkSpec, ...] = (),
    ) -> None:
        self._workers = workers
        self._threads = WorkerThreads()
        self._closing = ExitStack()
        self._starting_or_stopping = threading.Lock()
        self._recorder = Recorder(workers.tracer, workers.control.safety, record_dir, sinks)
        self._ended: RunSummary | None = None
        self._start = now(workers.clock)
        for mailbox in workers.mailboxes.all():
            mailbox.taps.append(self._recorder.offer)

    def start(self) -> Runtime:
        """Connect the robot, warm the engines, and start the threads, control last."""
        with self._starting_or_stopping, ExitStack() as opened:  # closed again if anything fails
            opened.callback(self._end_recording)  # runs last: it records how the others ended
            opened.callback(self._workers.close)
            self._workers.prepare()
            self._start = now(self._workers.clock)
            self._recorder.open(describe(self._workers, self._start))
            opened.enter_context(realtime_interpreter())
            for row in WORKERS:
                within_s = row.ends_within_s(self._workers.config)
                opened.callback(self._threads.stop, row.name, within_s)
                loop = row.loop(self._workers, self._recorder)
                cores = row.cores(self._workers.config)
                self._threads.start(row.name, loop, row.nice, cores, row.outlives)
            self._closing = opened.pop_all()
        return self

    def stop(self) -> None:
        """Stop control first, which turns the torque off, then the others. May be called twice.

        An arm with a safe pose moves there first; `hurry` leaves that out.
        """
        with self._starting_or_stopping:
            self._closing.close()

    @property
    def folder(self) -> Path | None:
        """The folder of the recording. None if there is none, and before `start` made it."""
        return self._recorder.folder

    def hurry(self) -> None:
        """Leave the safe pose out of the `stop` that runs or comes; for signal handlers too."""
        self._workers.control.hurry()

    def arm(self) -> None:
        """Turn the torque on. The arm holds its position until the policy's first chunk.

        Raises SafetyFault if safety refuses, and the error of a worker that has failed.
        """
        now_ns = self._workers.clock.now_ns()
        for loose in looser_than_default(self._workers.config):
            self._recorder.offer(LogLine(now_ns, WARNING, loose))
        self._ask("arm")

    def disarm(self) -> None:
        """Turn the torque off. Raises the same errors as `arm`."""
        self._ask("disarm")

    def reset(self, instruction: str | None = None) -> int:
        """Begin a new episode and return its epoch, the number of the episode.

        Messages of the old epoch have no effect from now on. An armed robot holds until the first
        chunk of the new epoch. Raises BundleError for an instruction that the bundle lacks.
        """
        if instruction is not None:
            self._workers.set_instruction(instruction)
        now_ns = self._workers.clock.now_ns()
        epoch = self._workers.mailboxes.reset(now_ns)
        self._recorder.offer(Reset(now_ns, epoch, instruction))
        if not self._workers.control.safety.torque_on:
            gc.collect()  # it stops every thread, which is harmless with torque off
        return epoch

    def wait(self, seconds: float | None = None) -> None:
        """Wait for `seconds`, None for ever. Raises the error of a worker as soon as one fails."""
        self._threads.failed.wait(seconds)
        self._threads.raise_error()

    def stages(self) -> dict[str, dict[str, float]]:
        """Return how long each stage took so far; see `Tracer.stage_table`."""
        return self._recorder.stage_table(self._workers.bundle.manifest.stages)

    def summary(self) -> RunSummary:
        """Return the summary of the run so far. After the end it is the recorded summary."""
        if self._ended is not None:
            return self._ended
        summary = summarise(self._workers, self._recorder, self._start)
        threads = {
            "threads": self._thread_times(),
            "scheduling": dict(self._threads.scheduling),
            "hung": tuple(self._threads.hung),
        }
        return summary.model_copy(update=threads)

    def __enter__(self) -> Runtime:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None and not issubclass(kind, Exception):  # a signal
            self.hurry()
        self.stop()
        if kind is None and not self._threads.error_raised:
            self._threads.raise_error()

    def _thread_times(self) -> dict[str, ThreadTimes]:
        """Times by thread. With a control process, `control` is its loop and `link` our thread."""
        times = self._threads.thread_times()
        if self._workers.control.thread is not None:
            times["link"], times["control"] = times["control"], self._workers.control.thread
        return times

    def _ask(self, verb: Verb) -> None:
        # First, because a request that no loop reads would take effect at the next start.
        self._check_control_runs(verb)
        control = self._workers.control
        done = control.request(verb)
        while not done.wait(POLL_S):
            self._check_control_runs(verb)
        self._threads.raise_error()
        if control.safety.torque_on != (verb == "arm"):
            raise SafetyFault(f"could not {verb}: {control.safety.changes[-1].reason}")

    def _check_control_runs(self, verb: Verb) -> None:
        self._threads.raise_error()
        if not self._threads.running("control"):
            raise SafetyFault(f"can't {verb}: the control loop is not running; call start()")

    def _end_recording(self) -> None:
        for t_ns, remark in self._workers.camera.report.remarks:
            self._recorder.offer(LogLine(t_ns, WARNING, remark))
        now_ns, error = self._workers.clock.now_ns(), self._threads.error
        if error is not None:
            as_planned = isinstance(error, CameraEnded) and self._workers.control.dry_run
            level = INFO if as_planned else ERROR
            self._recorder.offer(LogLine(now_ns, level, str(error)))
        control = self._workers.control
        for fault in (control.torque_fault, control.stop_latch):
            if fault is not None:
                self._recorder.offer(LogLine(now_ns, FATAL, fault))

        def summarised() -> RunSummary:
            self._ended = self.summary()
            return self._ended

        self._recorder.close(summarised)


@contextmanager
def realtime_interpreter() -> Iterator[None]:
    """Shorten the GIL's turns and switch garbage collection off: it stops all threads for 70 ms."""
    interval_s, collecting = sys.getswitchinterval(), gc.isenabled()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(interval_s)
        if collecting:
            gc.enable()
