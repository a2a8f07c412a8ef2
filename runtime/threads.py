"""Threads named by worker: their loops, their priorities, and what happens when one fails."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Protocol

from runtime.host.run_delay import ThreadMeter, ThreadTimes, meter
from runtime.mailbox import Mailbox, Message
from runtime.workers import WorkerSpec
from v2a.clock import Clock
from v2a.errors import CameraError
from v2a.spans import STAGE_INDEX, SpanRing

PUBLISH = STAGE_INDEX["publish"]
POLL_S = 0.1  # how long a waiting worker may take to notice that it should stop
JOIN_S = 5.0  # longer than any one run of a graph or wait for a picture should take

Stopping = Callable[[], bool]
Loop = Callable[[Stopping], None]


class Worker(Protocol):
    """What the runners run: `step` computes, and whoever called it publishes the result."""

    name: str
    ring: SpanRing

    def step(self, now_ns: int) -> Message | None: ...


class WorkerThreads:
    """The running threads. The first exception in any of them sets `failed`."""

    def __init__(self) -> None:
        self.failed = threading.Event()
        self.scheduling: dict[str, str] = {}
        self._meters: dict[str, ThreadMeter] = {}
        self.hung: list[str] = []  # did not end when they were told to
        self.error_raised = False
        self._ending = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._threads: dict[str, tuple[threading.Thread, threading.Event]] = {}

    def start(self, spec: WorkerSpec, loop: Loop) -> None:
        """Run `loop` in a thread until `stop(spec.name)`; it is asked to end at a failure, too."""
        stopping = threading.Event()
        thread = threading.Thread(
            target=self._run, args=(spec, loop, stopping), name=spec.name, daemon=True
        )
        self._threads[spec.name] = (thread, stopping)
        thread.start()

    def stop(self, name: str) -> None:
        """Ask the thread to end and wait for it; no such thread, nothing to do.

        One that hangs is left behind, a daemon that ends with the process, and that is said.
        """
        self._ending = True
        if name in self._threads:
            thread, stopping = self._threads.pop(name)
            stopping.set()
            thread.join(JOIN_S)
            if thread.is_alive():
                self.hung.append(name)
                line = f"warning: {name} did not end within {JOIN_S:g} s and was left behind"
                print(line, file=sys.stderr, flush=True)

    def running(self, name: str) -> bool:
        return name in self._threads and self._threads[name][0].is_alive()

    def thread_times(self) -> dict[str, ThreadTimes]:
        """CPU time and waits of each thread so far."""
        return {name: found.times() for name, found in list(self._meters.items())}

    @property
    def error(self) -> BaseException | None:
        """The first exception of any thread."""
        return self._error

    def raise_error(self) -> None:
        """Raise the first exception of any thread, as itself."""
        if self._error is not None:
            self.error_raised = True
            raise self._error

    def _run(self, spec: WorkerSpec, loop: Loop, stopping: threading.Event) -> None:
        # The recorder outlives a failure, to write down what led to it.
        outlives = spec.name == "recorder"
        self._meters[spec.name] = meter()
        try:
            self.scheduling[spec.name] = _schedule(spec)
            loop(lambda: stopping.is_set() or (self.failed.is_set() and not outlives))
        except BaseException as error:
            if self._ending and isinstance(error, CameraError):
                return  # at the end of a run a camera may well fall silent first
            with self._lock:
                self._error = self._error or error
            self.failed.set()
        finally:
            meter().close()


def step_on_news(
    worker: Worker, inbox: Mailbox[Message] | None, outbox: Mailbox[Message], clock: Clock
) -> Loop:
    """Step whenever `inbox` has something newer; without an inbox the worker paces itself."""

    def loop(stopping: Stopping) -> None:
        seen = -1
        while not stopping():
            if inbox is not None:
                meter().waits()
                waiting_ns = clock.now_ns()
                news = inbox.wait_newer(seen, POLL_S)
                if news is None:
                    continue
                seen = news.seq
                if news.t_publish_ns >= waiting_ns:
                    meter().woke(news.t_publish_ns, clock.now_ns())
            message = worker.step(clock.now_ns())
            if message is not None:
                start_ns = clock.now_ns()
                outbox.put(message, start_ns)
                worker.ring.add(PUBLISH, start_ns, clock.now_ns(), message.seq)

    return loop


def _schedule(spec: WorkerSpec) -> str:
    """Give this thread its niceness; returns what it got."""
    if not spec.nice:
        return "normal"
    try:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), spec.nice)
    except PermissionError as error:
        return f"normal ({error.strerror})"
    return f"nice {spec.nice}"
