"""`ForeignThread`: calls into a video library, each with a deadline.

OpenCV, FFmpeg and GStreamer wait inside their own code: V4L2 for 10 s, a network for 30 s, a
pipeline for ever. Python cannot interrupt such a call. So it runs in a thread that can be left
behind.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from typing import Any, TypeVar

from v2a.errors import CameraError

T = TypeVar("T")


class ForeignThread:
    """One daemon thread that runs the calls of one camera, in order.

    A call that hangs cannot be ended: every later call raises at once, and the thread ends with the
    process. `source` and `advice` go into the error's text.
    """

    def __init__(self, source: str, advice: str) -> None:
        self._source = source
        self._advice = advice
        self._calls: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        self._hung = False
        self._ended = False
        self._caller: int | None = None
        threading.Thread(target=self._run, name=f"camera {source}", daemon=True).start()

    def call(self, function: Callable[[], T], timeout_s: float, doing: str) -> T:
        """Return `function()`. Raises CameraError after `timeout_s`, and for any other exception.

        `doing` completes the sentence "SOURCE: ... within 2 s".
        """
        answer: Future[T] = Future()
        if not self._hung and not self._ended:
            self._follow_caller()
            self._calls.put((function, answer))
            try:
                return answer.result(timeout_s)
            except FutureTimeoutError as error:
                if answer.done() and answer.exception() is error:
                    raise CameraError(f"{self._source}: {error}; {self._advice}") from error
                self._hung = True
            except CameraError:
                raise
            except Exception as error:
                text = " ".join(str(error).split()) or type(error).__name__
                raise CameraError(f"{self._source}: {text}; {self._advice}") from error
        raise CameraError(f"{self._source}: {doing} within {timeout_s:g} s; {self._advice}")

    def end(self, last: Callable[[], object], timeout_s: float) -> None:
        """Run `last`, which releases the device, and end the thread. A second call does nothing.

        If a call hangs, `last` follows when that call returns, and this does not wait for it.
        OpenCV may crash if a capture is released while another thread reads from it.
        """
        if self._ended:
            return
        self._ended = True
        answer: Future[Any] = Future()
        self._calls.put((last, answer))
        self._calls.put(None)
        if not self._hung:
            try:
                answer.exception(timeout_s)
            except FutureTimeoutError:
                self._hung = True

    def _follow_caller(self) -> None:
        """Move the thread to the cores of its caller: decoding must not disturb control's core."""
        caller = threading.get_ident()
        if caller != self._caller:
            self._caller = caller
            cores = os.sched_getaffinity(0)
            self._calls.put((lambda: os.sched_setaffinity(0, cores), Future()))

    def _run(self) -> None:
        while (job := self._calls.get()) is not None:
            function, answer = job
            try:
                answer.set_result(function())
            except BaseException as error:
                answer.set_exception(error)
            del job, function, answer  # a waiting thread must not keep the last picture
