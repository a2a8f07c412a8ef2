"""The server of the live page: routes, the button's way to the control loop, and crowds."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path

import numpy as np
import pytest

from runtime.config.safety_yaml import EstopConfig
from runtime.recording.messages import from_png
from runtime.safety.estop import Estop, press
from runtime.web.guard import BUTTON_HEADER, Address, Guard, listen
from runtime.web.server import CONNECTIONS_MAX, Room, Server
from runtime.web.sink import WebSink
from runtime.web.view import View
from tests.runtime.web.world import ABOUT, IMAGE, view, vitals
from v2a.clock import FakeClock, MonotonicClock
from v2a.errors import ConfigError

PATIENCE_S = 30.0
PRESS = {BUTTON_HEADER: "1"}


class Serving:
    def __init__(self, found: View, estop: Path, token: str | None = None) -> None:
        listener = listen(Address("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.server = Server(listener, Room(found, Guard(token), str(estop), MonotonicClock()))
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def ask(self, method: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()


@pytest.fixture
def found() -> View:
    return view()


@pytest.fixture
def serving(found: View, tmp_path: Path) -> Iterator[Serving]:
    made = Serving(found, tmp_path / "estop")
    yield made
    made.server.end()


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[threading.Event]:
    """A control loop that does nothing but look at its emergency stop; the event: it was pressed.
    As `Control`, it closes its inputs when it has let go of the motors."""
    estop = Estop(EstopConfig(socket=str(tmp_path / "estop")))
    pressed, ending = threading.Event(), threading.Event()

    def look() -> None:
        while not ending.wait(0.001):
            if estop.pressed():
                pressed.set()
                break
        estop.close()

    thread = threading.Thread(target=look)
    thread.start()
    yield pressed
    ending.set()
    thread.join()


def test_the_page_and_its_parts(serving: Serving) -> None:
    for path, kind in (
        ("/", "text/html"),
        ("/page.js", "text/javascript"),
        ("/page.css", "text/css"),
    ):
        answer, body = serving.ask("GET", path)
        assert (answer.status, len(body) > 500) == (200, True)
        assert str(answer.headers["Content-Type"]).startswith(kind)
        assert "frame-ancestors 'none'" in answer.headers["Content-Security-Policy"]
    answer, body = serving.ask("GET", "/live")
    assert json.loads(body)["safety"][-1]["reason"] == "following"
    answer, body = serving.ask("GET", "/metrics")
    assert answer.headers["Content-Type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert b"v2a_ticks_total 100.0" in body
    assert serving.ask("GET", "/../server.py")[0].status == 404
    assert serving.ask("GET", "/estop", **PRESS)[0].status == 404
    assert serving.ask("OPTIONS", "/estop", Origin="http://evil.example")[0].status == 501


def test_the_picture_is_the_one_that_the_policy_saw(serving: Serving) -> None:
    pytest.importorskip("cv2", reason="pictures need OpenCV")
    _, body = serving.ask("GET", "/picture")
    np.testing.assert_array_equal(from_png(body), IMAGE)


def test_there_may_be_no_picture_yet(tmp_path: Path) -> None:
    serving = Serving(View(ABOUT, FakeClock()), tmp_path / "estop")
    assert serving.ask("GET", "/picture")[0].status == 404
    serving.server.end()


def test_a_press_reaches_the_loop_and_is_confirmed(serving: Serving, loop: threading.Event) -> None:
    answer, body = serving.ask("POST", "/estop", **PRESS)
    assert (answer.status, json.loads(body)) == (200, {"stopped": True})
    assert loop.is_set()


def test_a_press_that_is_refused_reaches_nothing(serving: Serving, loop: threading.Event) -> None:
    for headers in (
        {},
        PRESS | {"Host": "evil.example"},
        PRESS | {"Origin": "http://evil.example"},
    ):
        assert serving.ask("POST", "/estop", **headers)[0].status == 403
    assert serving.ask("GET", "/live", Host="evil.example")[0].status == 403
    # The loop reads its socket without a break: what was sent before is seen before this one.
    assert not loop.is_set()
    serving.ask("POST", "/estop", **PRESS)
    assert loop.is_set()


def test_a_press_that_nobody_hears_is_said(serving: Serving, tmp_path: Path) -> None:
    answer, body = serving.ask("POST", "/estop", **PRESS)
    assert (answer.status, body) == (503, b"no control loop is running")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as died:
        died.bind(str(tmp_path / "estop"))  # of a process that was killed: the file is left
    assert serving.ask("POST", "/estop", **PRESS)[0].status == 503


def test_a_loop_that_hangs_is_not_reported_as_stopped(
    serving: Serving, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runtime.web.server.CONFIRM_NS", 0)
    path = tmp_path / "estop"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as hanging:
        hanging.bind(str(path))
        for _ in range(50):  # more than a socket holds: none of them may block
            assert press(str(path))
        answer, body = serving.ask("POST", "/estop", **PRESS)
    assert (answer.status, json.loads(body)) == (200, {"stopped": False})


def test_with_a_token_the_page_is_open_and_all_that_it_shows_is_not(
    found: View, tmp_path: Path, loop: threading.Event
) -> None:
    serving = Serving(found, tmp_path / "estop", token="right")
    assert serving.ask("GET", "/")[0].status == 200
    for path in ("/live", "/metrics", "/picture"):
        assert serving.ask("GET", path)[0].status == 403
        assert serving.ask("GET", path, Authorization="Bearer wrong")[0].status == 403
    assert serving.ask("GET", "/live", Authorization="Bearer right")[0].status == 200
    assert serving.ask("POST", "/estop", **PRESS)[0].status == 403
    assert not loop.is_set()
    assert serving.ask("POST", "/estop", Authorization="Bearer right")[0].status == 200
    assert loop.is_set()
    serving.server.end()


def test_a_crowd_that_is_stuck_keeps_nobody_from_the_button(
    serving: Serving, found: View, loop: threading.Event
) -> None:
    """Clients that connect and say nothing, or ask and never read, more than there is room for."""
    crowd = []
    for number in range(2 * CONNECTIONS_MAX):
        client = socket.create_connection(("127.0.0.1", serving.port))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        if number % 2:
            client.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200)
        crowd.append(client)
    found.take(vitals(ticks=321))  # the run goes on
    assert b"v2a_ticks_total 321" in serving.ask("GET", "/metrics")[1]
    assert serving.ask("POST", "/estop", **PRESS)[0].status == 200
    assert loop.is_set()
    assert threading.active_count() < 2 * CONNECTIONS_MAX
    for client in crowd:
        client.close()


def test_the_sink_serves_until_it_is_closed(capfd: pytest.CaptureFixture[str]) -> None:
    sink = WebSink(Address("127.0.0.1", 0), "secret", "/nowhere", ABOUT)
    url = capfd.readouterr().err.strip().removeprefix("live page: ")
    port = int(url.partition("#")[0].rstrip("/").rpartition(":")[2])
    assert url.endswith("/#secret")
    sink.take(vitals())
    socket.create_connection(("127.0.0.1", port)).close()
    with pytest.raises(ConfigError, match="Address already in use"):
        WebSink(Address("127.0.0.1", port), None, "/nowhere", ABOUT)
    sink.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
