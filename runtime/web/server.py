"""Serves the live page over HTTP from threads of the recorder process.

The server is the standard library's, so the robot needs no further package. The page sends a
request only after it has drawn the last answer, so nothing queues up for a slow viewer.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from runtime.recording.messages import to_json, to_png
from runtime.safety.estop import listening, press
from runtime.web.guard import Guard
from runtime.web.metrics import CONTENT_TYPE, metrics
from runtime.web.view import View, snapshot
from v2a.clock import Clock

# A new connection above this closes the oldest, so a crowd can't block the emergency stop.
CONNECTIONS_MAX: Final = 24
STUCK_S: Final = 5.0  # a client that reads and sends nothing for this time is disconnected
FRESH_NS: Final = 50_000_000  # requests within this time get the same answer
CONFIRM_NS: Final = 2_000_000_000
CONFIRM_STEP_S: Final = 0.02
LAST_LOOK_S: Final = 0.3  # time for viewers to see how the run ended

_HEADERS: Final = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
# Files that need no token, as they hold nothing about the run: path -> file, content type.
_FILES: Final = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
}


@dataclass(frozen=True, slots=True)
class Room:
    """The data that all handlers share. `estop` is the path of the emergency stop's socket."""

    view: View
    guard: Guard
    estop: str
    clock: Clock


class Server(ThreadingHTTPServer):
    """Serves on the socket `listener` until `end`."""

    daemon_threads = True
    block_on_close = False  # a stuck client must not hold up the end of a run

    def __init__(self, listener: socket.socket, room: Room) -> None:
        super().__init__(listener.getsockname()[:2], Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.room = room
        self._connections: OrderedDict[Any, None] = OrderedDict()
        self._counting = threading.Lock()
        self._drawing = threading.Lock()
        self._drawn = (-FRESH_NS, b"")

    def snapshot(self) -> bytes:
        """Return the status as JSON (`LiveStatus`). Simultaneous requests share one answer."""
        with self._drawing:
            now_ns = self.room.clock.now_ns()
            if now_ns - self._drawn[0] >= FRESH_NS:
                self._drawn = now_ns, to_json(snapshot(self.room.view, now_ns)).encode()
            return self._drawn[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._counting:
            self._connections[request] = None
            if len(self._connections) > CONNECTIONS_MAX:
                oldest, _ = self._connections.popitem(last=False)
                with contextlib.suppress(OSError):  # it has already closed
                    oldest.shutdown(socket.SHUT_RDWR)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._counting:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore clients that left or got stuck."""

    def end(self) -> None:
        """Give viewers a last look, then stop serving."""
        time.sleep(LAST_LOOK_S)
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """Answers the requests of one connection."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = STUCK_S
    server_version, sys_version = "v2a", ""

    def do_GET(self) -> None:
        if self.path in _FILES:
            name, kind = _FILES[self.path]
            self._answer(HTTPStatus.OK, kind, (Path(__file__).parent / name).read_bytes())
        else:
            self._guarded(_GET)

    def do_POST(self) -> None:
        self.close_connection = True  # a body is not read
        self._guarded(_POST)

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing: the terminal belongs to the run."""

    def live(self) -> None:
        """Answer with the status."""
        self._answer(HTTPStatus.OK, "application/json", self.server.snapshot())

    def picture(self) -> None:
        """Answer with the newest picture as PNG."""
        with self.server.room.view.lock:
            image = self.server.room.view.picture()
        if image is None:
            self._refuse(HTTPStatus.NOT_FOUND, "no picture yet")
        else:
            self._answer(HTTPStatus.OK, "image/png", to_png(image))

    def metrics(self) -> None:
        """Answer with the metrics for Prometheus."""
        room = self.server.room
        text = metrics(room.view, room.clock.now_ns())
        self._answer(HTTPStatus.OK, CONTENT_TYPE, text.encode())

    def estop(self) -> None:
        """Press the emergency stop, and wait up to `CONFIRM_NS` until torque is off.

        The control loop closes its socket when torque is off.
        """
        clock, path = self.server.room.clock, self.server.room.estop
        if not press(path):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, "no control loop is running")
            return
        end_ns = clock.now_ns() + CONFIRM_NS
        while (goes_on := listening(path)) and clock.now_ns() < end_ns:
            time.sleep(CONFIRM_STEP_S)
        answer = to_json({"stopped": not goes_on})
        self._answer(HTTPStatus.OK, "application/json", answer.encode())

    def _guarded(self, routes: dict[str, Callable[[Handler], None]]) -> None:
        if self.path not in routes:
            self._refuse(HTTPStatus.NOT_FOUND, "no such page")
        elif why := self.server.room.guard.refusal(self.headers, button=routes is _POST):
            self._refuse(HTTPStatus.FORBIDDEN, why)
        else:
            routes[self.path](self)

    def _refuse(self, status: HTTPStatus, why: str) -> None:
        self._answer(status, "text/plain; charset=utf-8", why.encode())

    def _answer(self, status: HTTPStatus, kind: str, body: bytes) -> None:
        self.send_response(status)
        own = {"Content-Type": kind, "Content-Length": str(len(body))}
        for name, value in {**_HEADERS, **own}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)


_GET: Final[dict[str, Callable[[Handler], None]]] = {
    "/live": Handler.live,
    "/picture": Handler.picture,
    "/metrics": Handler.metrics,
}
_POST: Final[dict[str, Callable[[Handler], None]]] = {"/estop": Handler.estop}
