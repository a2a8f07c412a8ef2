"""What the live page answers to each request."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final

from runtime.control.outcome import PRESSED
from runtime.recording.messages import to_json, to_png
from runtime.safety.stop_latch import keep
from runtime.web.control_link import ControlLink
from runtime.web.guard import Guard
from runtime.web.http import Answer, Request, refusal
from runtime.web.live_status import OutcomeStatus
from runtime.web.metrics import CONTENT_TYPE, metrics
from runtime.web.view import View, snapshot
from v2a.clock import Clock

FRESH_NS: Final = 50_000_000  # requests within this time get the same answer
# A press waits this long for the final outcome. Three torque-off tries for each of 14 silent
# servos, with 20 ms for each write and each reading, take 1.7 s.
CONFIRM_S: Final = 3.0
# Files that need no token, as they hold nothing about the run: path -> file, content type.
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


class Shared:
    """Gives simultaneous requests one answer, so a crowd of viewers costs little more than one."""

    def __init__(self, make: Callable[[int], Answer], clock: Clock) -> None:
        self._make = make
        self._clock = clock
        self._lock = threading.Lock()
        self._made: tuple[int, Answer] | None = None

    def answer(self) -> Answer:
        """The newest answer, not older than `FRESH_NS`."""
        with self._lock:
            now_ns = self._clock.now_ns()
            if self._made is None or now_ns - self._made[0] >= FRESH_NS:
                self._made = now_ns, self._make(now_ns)
            return self._made[1]


@dataclass(frozen=True, slots=True)
class Room:
    """The data that all requests share."""

    view: View
    guard: Guard
    control: ControlLink
    clock: Clock

    def outcome(self) -> OutcomeStatus:
        """What the control process has confirmed."""
        return OutcomeStatus.of(self.control.outcome, self.control.hung_up, self.view.about.joints)


class Routes:
    """Answers requests. `answer` may be called from any thread."""

    def __init__(self, room: Room) -> None:
        self._room = room
        makers = {"/live": self._live, "/picture": self._picture, "/metrics": self._metrics}
        self._shared = {path: Shared(make, room.clock) for path, make in makers.items()}
        files = Path(__file__).parent
        self._files = {
            path: Answer(HTTPStatus.OK, kind, (files / name).read_bytes())
            for path, (name, kind) in _FILES.items()
        }

    def allowed(self, request: Request) -> bool:
        """Whether the request comes from somebody who may look, or press if it is a press."""
        if request.refused is not None:
            return False
        return self._room.guard.refusal(request.headers, request.command == "POST") is None

    def press(self, request: Request) -> bool:
        """Send a press on its way if `request` is one that is allowed. Never waits."""
        if not self.allowed(request) or (request.command, request.path) != ("POST", "/estop"):
            return False
        self._room.control.press()
        return True

    def answer(self, request: Request) -> Answer:
        """Answer a request. A press waits until its outcome is known, up to `CONFIRM_S`."""
        if request.refused is not None:
            return request.refused
        path, guard = request.path, self._room.guard
        paths = _METHODS.get(request.command)
        if paths is None:
            return refusal(HTTPStatus.NOT_IMPLEMENTED, f"Unsupported method ({request.command!r})")
        if path not in paths:
            return refusal(HTTPStatus.NOT_FOUND, "no such page")
        if path in self._files:
            return self._files[path]
        if why := guard.refusal(request.headers, button=request.command == "POST"):
            return refusal(HTTPStatus.FORBIDDEN, why)
        return self._estop() if path == "/estop" else self._shared[path].answer()

    def _live(self, now_ns: int) -> Answer:
        return _json(snapshot(self._room.view, now_ns, self._room.outcome()))

    def _picture(self, now_ns: int) -> Answer:
        with self._room.view.lock:
            image = self._room.view.picture()
        if image is None:
            return refusal(HTTPStatus.NOT_FOUND, "no picture yet")
        return Answer(HTTPStatus.OK, "image/png", to_png(image))

    def _metrics(self, now_ns: int) -> Answer:
        text = metrics(self._room.view, now_ns, self._room.outcome())
        return Answer(HTTPStatus.OK, CONTENT_TYPE, text.encode())

    def _estop(self) -> Answer:
        control = self._room.control
        control.press()
        control.wait_until_ended(CONFIRM_S)
        outcome, about = self._room.outcome(), self._room.view.about
        # The control process keeps what it has heard. A press may also come after its last look.
        if not about.dry_run:
            keep(about.robot, PRESSED, f"page process {os.getpid()}")
        gone = control.hung_up and not outcome.final
        status = HTTPStatus.SERVICE_UNAVAILABLE if gone else HTTPStatus.OK
        return _json(outcome.pressed(), status)


def _json(content: Any, status: int = HTTPStatus.OK) -> Answer:
    return Answer(status, "application/json", to_json(content).encode())


_METHODS: Final = {
    "GET": {*_FILES, "/live", "/picture", "/metrics"},
    "POST": {"/estop"},
}
