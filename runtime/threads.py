"""Runs each worker's loop in its own thread, and ends all threads when one fails."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

from runtime.host.run_delay import ThreadMeter, ThreadTimes, meter
from runtime.mailbox import Mailbox, Message
from v2a.clock import Clock
from v2a.errors import CameraError
from v2a.output import say
from v2a.spans import STAGE_INDEX, SpanRing

PUBLISH = STAGE_INDEX["publish"]
POLL_S = 0.1  # longest time until a waiting worker notices that it should stop
JOIN_S = 5.0  # longer than one run of a graph, or one wait for a picture

Stopping = Callable[[], bool]
Loop = Callable[[Stopping], None]


class Worker(Protocol):
    """Computes one message per step. The caller publishes it."""

    ring: SpanRing

    def step(self, now_ns: int) -> Message | None:
        """Return the next message, or None if there is none at `now_ns`."""


class WorkerThreads:
    """The running threads, by name. The first exception in any of them sets `failed`."""

    def __init__(self) -> None:
        self.failed = threading.Event()
        self.scheduling: dict[str, str] = {}
        self._meters: dict[str, ThreadMeter] = {}
        self.hung: list[str] = []  # threads that did not end within `JOIN_S`
        self.error_raised = False
        self._ending = False
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._threads: dict[str, tuple[threading.Thread, threading.Event]] = {}

    def start(
        self,
        name: str,
        loop: Loop,
        nice: int = 0,
        cores: set[int] | None = None,
        outlives: bool = False,
    ) -> None:
        """Run `loop` in a thread until `stop(name)`.

        The loop also ends when another worker fails, unless `outlives` is true. The thread gets
        the niceness `nice` and the CPU cores `cores`, if the system allows it.
        """
        stopping = threading.Event()
        target = partial(self._run, name, loop, stopping, partial(_schedule, nice, cores), outlives)
        thread = threading.Thread(target=target, name=name, daemon=True)
        self._threads[name] = (thread, stopping)
        thread.start()

    def stop(self, name: str, within_s: float = JOIN_S) -> None:
        """Ask the thread to end, and wait for it. An unknown name is ignored.

        A thread that hangs is left behind with a warning. It is a daemon, so it ends with the
        process.
        """
        self._ending = True
        if name in self._threads:
            thread, stopping = self._threads.pop(name)
            stopping.set()
            thread.join(within_s)
            if thread.is_alive():
                self.hung.append(name)
                say(f"warning: {name} did not end within {within_s:g} s and was left behind")

    def running(self, name: str) -> bool:
        """Return whether the thread is alive."""
        return name in self._threads and self._threads[name][0].is_alive()

    def thread_times(self) -> dict[str, ThreadTimes]:
        """Return the CPU time and the waits of each thread so far."""
        return {name: found.times() for name, found in list(self._meters.items())}

    @property
    def error(self) -> BaseException | None:
        """The first exception of any thread, None if there is none."""
        return self._error

    def raise_error(self) -> None:
        """Raise the first exception of any thread unchanged, if there is one."""
        if self._error is not None:
            self.error_raised = True
            raise self._error

    def _run(
        self,
        name: str,
        loop: Loop,
        stopping: threading.Event,
        schedule: Callable[[], str],
        outlives: bool,
    ) -> None:
        self._meters[name] = meter()
        try:
            self.scheduling[name] = schedule()
            loop(lambda: stopping.is_set() or (self.failed.is_set() and not outlives))
        except BaseException as error:
            if self._ending and isinstance(error, CameraError):
                return  # a camera may stop first at the end of a run
            with self._lock:
                self._error = self._error or error
            self.failed.set()
        finally:
            meter().close()


def step_on_news(
    worker: Worker, inbox: Mailbox[Any] | None, outbox: Mailbox[Any], clock: Clock
) -> Loop:
    """Make a loop that steps `worker` whenever `inbox` has a newer message.

    Without an inbox the worker sets its own pace.
    """

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


def _schedule(nice: int, cores: set[int] | None) -> str:
    """Give this thread its niceness and cores, and return what the system granted."""
    try:
        if cores is not None:
            os.sched_setaffinity(threading.get_native_id(), cores)
        if nice:
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), nice)
    except PermissionError as error:
        return f"normal ({error.strerror})"
    return f"nice {nice}" if nice else "normal"
