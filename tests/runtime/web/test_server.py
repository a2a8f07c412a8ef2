"""The server of the live page: routes, the button's way to the control process, and crowds."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from http.client import HTTPConnection, HTTPResponse
from multiprocessing.connection import Pipe
from typing import Any

import numpy as np
import pytest

from runtime.control.outcome import LOST, PRESSED, Outcome, PageEnd
from runtime.control.record import ControlRecord
from runtime.recording.messages import from_png
from runtime.recording.sinks import receive
from runtime.safety.safety import SafetyRecord
from runtime.safety.stop_latch import FOLDER_KEY, latched
from runtime.web.control_link import ControlLink
from runtime.web.crowd import STRANGERS_OF_ADDRESS_MAX, VIEWERS_MAX
from runtime.web.guard import BUTTON_HEADER, Address, Guard, listen
from runtime.web.http import HEAD_MAX
from runtime.web.routes import Room, Routes
from runtime.web.server import Server
from runtime.web.sink import WAITING_MAX, WebSink
from runtime.web.view import View
from tests.runtime.web.world import ABOUT, IMAGE, outcome, view, vitals
from tests.waiting import PATIENCE_S, until
from v2a.clock import FakeClock, MonotonicClock

PRESS = {BUTTON_HEADER: "1"}


class Loop:
    """A stand-in for the control process: once pressed, it sends `outcomes` and ends."""

    def __init__(self, end: socket.socket, outcomes: list[Outcome]) -> None:
        self.pressed = threading.Event()
        self._end, self._outcomes = end, outcomes
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._end:
            if self._end.recv(16):
                self.pressed.set()
                for each in self._outcomes:
                    self._end.send(each.pack())

    def join(self) -> None:
        self._thread.join(PATIENCE_S)


class Serving:
    def __init__(
        self, found: View, token: str | None = None, outcomes: list[Outcome] | None = None
    ) -> None:
        listener = listen(Address("127.0.0.1", 0))
        self.port = listener.getsockname()[1]
        self.page_end, self.control_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control = ControlLink(self.page_end, MonotonicClock())
        self.loop = None if outcomes is None else Loop(self.control_end, outcomes)
        self._ending = threading.Event()
        routes = Routes(Room(found, Guard(token), self.control, MonotonicClock()))
        self.server = Server(listener, routes)
        self._threads = [
            threading.Thread(target=self.server.serve, args=(self._ending.is_set,)),
            threading.Thread(target=self.control.listen),
        ]
        for thread in self._threads:
            thread.start()

    def ask(self, method: str, path: str, **headers: str) -> tuple[HTTPResponse, bytes]:
        with closing(HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)) as connection:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer, answer.read()

    def press(self, **headers: str) -> tuple[int, dict[str, Any]]:
        answer, body = self.ask("POST", "/estop", **PRESS, **headers)
        return answer.status, json.loads(body)

    def end(self) -> None:
        self._ending.set()
        if self.loop is not None:
            self.control.press()  # if nobody did
            self.loop.join()
        self.control_end.close()
        for thread in self._threads:
            thread.join()
        self.page_end.close()
        self.server.close()


@pytest.fixture
def found() -> View:
    return view()


@pytest.fixture
def serving(found: View) -> Iterator[Serving]:
    made = Serving(found, outcomes=[outcome()])
    yield made
    made.end()


@pytest.fixture
def loop(serving: Serving) -> Loop:
    assert serving.loop is not None
    return serving.loop


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


def test_there_may_be_no_picture_yet() -> None:
    serving = Serving(View(ABOUT, FakeClock()))
    assert serving.ask("GET", "/picture")[0].status == 404
    serving.end()


def test_a_press_reaches_the_loop_and_is_confirmed(serving: Serving, loop: Loop) -> None:
    status, answer = serving.press()
    assert (status, answer["confirmed"]) == (200, True)
    assert answer["torque"] == {"base": "off", "tip": "off"}
    assert answer["text"] == "Stopped: torque is off, confirmed by all 2 joints"
    assert (answer["state"], answer["reason"], answer["run"]) == ("torque off", "why", "1f")
    assert loop.pressed.is_set()
    assert json.loads(serving.ask("GET", "/live")[1])["outcome"] == answer


@pytest.mark.parametrize(
    ("outcomes", "status", "torque"),
    [
        ([outcome(tip="unknown")], 200, {"base": "off", "tip": "unknown"}),
        ([outcome(base="on", tip="on")], 200, {"base": "on", "tip": "on"}),
        # It died before its last word: what it said before is out of date.
        ([outcome(final=False)], 503, {"base": "unknown", "tip": "unknown"}),
        ([], 503, {"base": "unknown", "tip": "unknown"}),
    ],
)
def test_whatever_is_not_confirmed_by_every_joint_is_said(
    found: View, outcomes: list[Outcome], status: int, torque: dict[str, str]
) -> None:
    serving = Serving(found, outcomes=outcomes)
    answered, answer = serving.press()
    assert (answered, answer["confirmed"], answer["torque"]) == (status, False, torque)
    assert answer["text"].startswith("NOT CONFIRMED: cut the motors' power")
    serving.end()


def test_a_loop_that_hangs_has_confirmed_nothing(
    found: View, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last outcome says that torque is off, but it is not final: it may arm at any time."""
    monkeypatch.setattr("runtime.web.routes.CONFIRM_S", 0.0)
    serving = Serving(found)
    serving.control_end.send(outcome(final=False).pack())
    for _ in range(300):  # more than a socket holds: none of them may block
        serving.control.press()
    status, answer = serving.press()
    assert (status, answer["confirmed"]) == (200, False)
    assert "did not say in time" in answer["text"]
    serving.end()


def test_packets_that_are_no_outcome_change_nothing(found: View) -> None:
    junk = [b"\xff", b"{}", outcome().pack()[:-5]]
    serving = Serving(found)
    for packet in junk:
        serving.control_end.send(packet)
    serving.control_end.send(outcome().pack())
    serving.control.wait_until_ended(PATIENCE_S)
    assert serving.control.outcome == outcome()
    serving.end()


def test_a_press_that_is_refused_reaches_nothing(serving: Serving, loop: Loop) -> None:
    for headers in (
        {},
        PRESS | {"Host": "evil.example"},
        PRESS | {"Origin": "http://evil.example"},
    ):
        assert serving.ask("POST", "/estop", **headers)[0].status == 403
    assert serving.ask("GET", "/live", Host="evil.example")[0].status == 403
    assert not loop.pressed.is_set()
    serving.press()
    assert loop.pressed.is_set()


def test_with_a_token_the_page_is_open_and_all_that_it_shows_is_not(found: View) -> None:
    serving = Serving(found, token="right", outcomes=[outcome()])
    assert serving.loop is not None
    assert serving.ask("GET", "/")[0].status == 200
    for path in ("/live", "/metrics", "/picture"):
        assert serving.ask("GET", path)[0].status == 403
        assert serving.ask("GET", path, Authorization="Bearer wrong")[0].status == 403
    assert serving.ask("GET", "/live", Authorization="Bearer right")[0].status == 200
    assert serving.ask("POST", "/estop", **PRESS)[0].status == 403
    assert not serving.loop.pressed.is_set()
    assert serving.press(Authorization="Bearer right")[1]["confirmed"]
    serving.end()


@pytest.mark.parametrize(
    "first",
    [
        b"",  # says nothing
        b"GET /live HTTP/1.1\r\nX: ",  # never ends
        b"GET /live HTTP/1.1\r\nHost: evil.example\r\n\r\n",  # is refused
        b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n" * 200,  # asks and never reads
    ],
)
def test_a_crowd_that_is_stuck_keeps_nobody_from_the_button(
    serving: Serving, found: View, loop: Loop, first: bytes
) -> None:
    threads = threading.active_count()
    with ExitStack() as crowd:
        for _ in range(3 * STRANGERS_OF_ADDRESS_MAX):
            client = socket.create_connection(("127.0.0.1", serving.port))
            crowd.enter_context(client)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            with suppress(OSError):  # turned away already
                client.sendall(first)
        found.take(vitals(ticks=321))  # the run goes on
        assert b"v2a_ticks_total 321" in serving.ask("GET", "/metrics")[1]
        assert serving.press()[1]["confirmed"]
        assert loop.pressed.is_set()
        # The threads of those who lost their place end; a busy machine takes its time for that.
        until(lambda: threading.active_count() - threads < VIEWERS_MAX + 2)


def test_a_viewer_keeps_its_connection_through_a_storm_of_strangers(serving: Serving) -> None:
    with closing(HTTPConnection("127.0.0.1", serving.port, timeout=PATIENCE_S)) as viewer:
        viewer.request("GET", "/live")
        viewer.getresponse().read()
        mine = viewer.sock
        for _ in range(3 * STRANGERS_OF_ADDRESS_MAX):
            socket.create_connection(("127.0.0.1", serving.port)).close()
        viewer.request("POST", "/estop", headers=PRESS)
        assert viewer.sock is mine
        assert json.loads(viewer.getresponse().read())["confirmed"]


ODD = {
    b"\x16\x03\x01\x02\x00\r\n\r\n": 400,
    b"GET\r\n\r\n": 400,
    b"\r\n\r\n": 400,
    b"GET / HTTP/9.9\r\n\r\n": 505,
    b"HEAD / HTTP/1.1\r\nHost: localhost\r\n\r\n": 501,
    b"GET /live HTTP/1.1\r\n\r\n": 403,  # no host
    b"GET /live HTTP/1.1\r\nHost: localhost\r\nHost: evil\r\n\r\n": 400,
    b"GET /" + b"a" * HEAD_MAX: 431,
    b"GET / HTTP/1.1\r\n" + b"X: 1\r\n" * 200 + b"\r\n": 431,
}


@pytest.mark.parametrize("sent", ODD)
def test_odd_requests_are_refused_and_nothing_breaks(serving: Serving, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", serving.port), PATIENCE_S) as client:
        client.sendall(sent)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.startswith(f"HTTP/1.1 {ODD[sent]} ".encode())
    assert serving.press()[1]["confirmed"]


def test_the_control_processes_end_hears_presses_and_the_loss_of_the_page() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    page, end = ControlLink(theirs, FakeClock()), PageEnd(ours, FakeClock())
    assert end.pressed() is None
    page.press()
    assert end.pressed() == PRESSED
    assert end.pressed() is None
    theirs.close()
    assert end.pressed() == LOST
    assert end.pressed() == LOST
    ours.close()


def test_a_page_that_is_stuck_holds_up_no_tick_and_still_confirms_nothing() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    end, control = PageEnd(ours, FakeClock()), ControlRecord(SafetyRecord())
    control.torque = {"base": "off"}
    for number in range(2000):  # more than the socket holds
        end.tell(control, number * 10**9)
    page = ControlLink(theirs, FakeClock())
    ours.close()
    page.listen()
    assert page.hung_up
    assert page.outcome is not None
    assert not page.outcome.confirmed
    theirs.close()


def test_the_sink_forwards_and_drops_what_a_stuck_page_does_not_take() -> None:
    outlet, inlet = Pipe(duplex=False)
    with inlet:
        sink = WebSink(os.dup(inlet.fileno()))
    for number in range(4 * WAITING_MAX):
        sink.take((number, b"x" * 4096))
    taken = receive(outlet)
    assert taken[0][0] == 0
    assert len(sink._waiting) <= WAITING_MAX
    outlet.close()
    sink.close()
    sink.take("after the end")


def test_a_press_after_the_run_ended_by_a_fault_stays_in_force(found: View) -> None:
    """The bus is gone: the control process has said its last word before the press comes."""
    serving = Serving(found, outcomes=[outcome(base="unknown", tip="unknown")])
    serving.control.press()
    serving.control.wait_until_ended(PATIENCE_S)
    assert latched(ABOUT.robot) is None  # this stand-in keeps nothing
    assert not serving.press()[1]["confirmed"]
    assert PRESSED in (latched(ABOUT.robot) or "")
    serving.end()


def test_a_press_that_cannot_be_kept_is_answered_all_the_same(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(FOLDER_KEY, "relative")
    assert serving.press()[1]["confirmed"]
