"""Serves the live page over HTTP.

One thread waits at the door: it accepts connections and reads their first request without ever
waiting for one of them. So a storm of connections costs no threads, and a press is on its way to
the control process as soon as its request is whole. Only a viewer, whose request the `Guard`
allows, gets a thread of its own. The page sends a request only after it has drawn the last answer,
so nothing queues up for a slow viewer.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from runtime.web.crowd import Crowd
from runtime.web.http import HEAD_END, HEAD_MAX, Request, too_long
from runtime.web.routes import Routes

STUCK_S: Final = 5.0  # for a whole request, and for an answer that nobody reads
ANSWERS_HZ: Final = 100.0  # to all viewers together: they must not take the policy's time
ACCEPT_MAX: Final = 64  # at once, so that those who wait at the door get their turn
DOOR_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Visitor:
    """A connection at the door."""

    connection: socket.socket
    address: str
    until_s: float  # when its first request must be whole


class Server:
    """Serves on the socket `listener`."""

    def __init__(self, listener: socket.socket, routes: Routes) -> None:
        self._listener = listener
        self._listener.setblocking(False)
        self._routes = routes
        self._crowd: Crowd[socket.socket] = Crowd()
        self._counting = threading.Lock()  # holds for `_crowd`
        self._door = select.epoll()
        self._door.register(listener, select.EPOLLIN)
        self._visitors: dict[int, Visitor] = {}  # by descriptor, oldest first

    def serve(self, ending: Callable[[], bool]) -> None:
        """Serve until `ending()`."""
        entrance = self._listener.fileno()
        while not ending():
            ready = [number for number, _ in self._door.poll(DOOR_S)]
            for number in ready:
                if number in self._visitors:
                    self._or_leaves(self._visitors[number])
            if entrance in ready:
                self._accept()
            self._close_stuck()

    def close(self) -> None:
        """Stop listening. Viewers keep their connections until the process ends."""
        for visitor in [*self._visitors.values()]:
            self._leave(visitor)
        self._door.close()
        self._listener.close()

    def _accept(self) -> None:
        for _ in range(ACCEPT_MAX):
            try:
                connection, (address, *_) = self._listener.accept()
            except OSError:
                return  # nobody waits any more, or has left already
            connection.setblocking(False)
            number = connection.fileno()
            self._visitors[number] = Visitor(connection, address, time.monotonic() + STUCK_S)
            # Edge triggered: the request is only peeked at, and stays readable.
            self._door.register(number, select.EPOLLIN | select.EPOLLET)
            with self._counting:
                displaced = self._crowd.come(connection, address)
            if displaced is not None:
                self._leave(self._visitors[displaced.fileno()])

    def _close_stuck(self) -> None:
        now_s = time.monotonic()
        while self._visitors and (oldest := next(iter(self._visitors.values()))).until_s < now_s:
            self._leave(oldest)

    def _or_leaves(self, visitor: Visitor) -> None:
        try:
            self._look(visitor)
        except OSError:
            self._leave(visitor)
        except Exception:
            traceback.print_exc()  # the STOP of all others must go on
            self._leave(visitor)

    def _look(self, visitor: Visitor) -> None:
        """See whether the first request is whole, and whether it comes from a viewer."""
        found = visitor.connection.recv(HEAD_MAX, socket.MSG_PEEK)
        head, end, _ = found.partition(HEAD_END)
        if not found:
            self._leave(visitor)
        elif end:
            request = Request(head + end)
            self._routes.press(request)  # at once, whatever the viewers' threads do
            if self._routes.allowed(request):
                self._welcome(visitor)
            else:
                self._turn_away(visitor, self._routes.answer(request).pack(close=True))
        elif len(found) == HEAD_MAX:
            self._turn_away(visitor, too_long().pack(close=True))

    def _turn_away(self, visitor: Visitor, answer: bytes) -> None:
        # What is left unread would make the kernel drop the answer.
        visitor.connection.recv(2 * HEAD_MAX)
        visitor.connection.send(answer)
        self._leave(visitor)

    def _leave(self, visitor: Visitor) -> None:
        self._visitors.pop(visitor.connection.fileno(), None)
        with self._counting:
            self._crowd.leave(visitor.connection, visitor.address)
        visitor.connection.close()

    def _welcome(self, visitor: Visitor) -> None:
        """Give a viewer a thread; the least recently used one may lose its place."""
        connection = visitor.connection
        del self._visitors[connection.fileno()]
        self._door.unregister(connection)
        connection.settimeout(STUCK_S)
        with self._counting:
            displaced = self._crowd.become_viewer(connection, visitor.address)
        if displaced is not None:
            with contextlib.suppress(OSError):  # it has already closed
                displaced.shutdown(socket.SHUT_RDWR)
        threading.Thread(target=self._attend, args=(visitor,), daemon=True).start()

    def _attend(self, visitor: Visitor) -> None:
        """Answer a viewer's requests until it leaves, gets stuck or asks for what it may not."""
        connection = visitor.connection
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            next_s = 0.0
            for request in _requests(connection):
                with self._counting:
                    self._crowd.used(connection)
                    pace_s = self._crowd.viewers / ANSWERS_HZ
                if not self._routes.press(request):
                    _wait(connection, next_s - time.monotonic())
                next_s = time.monotonic() + pace_s
                close = request.close_connection or not self._routes.allowed(request)
                connection.sendall(self._routes.answer(request).pack(close))
                if close:
                    return
        except OSError:
            pass  # it left, got stuck or lost its place
        finally:
            with self._counting:
                self._crowd.leave(connection, visitor.address)
            connection.close()


def _wait(connection: socket.socket, seconds: float) -> None:
    """Sleep until `seconds` have passed or the connection is shut down, whichever is first."""
    hangup = select.poll()
    hangup.register(connection, 0)  # only POLLHUP, which is always reported
    hangup.poll(max(0.0, seconds) * 1e3)


def _requests(connection: socket.socket) -> Iterator[Request]:
    """The requests of a viewer. Ends when it leaves or sends a head that is too long."""
    found = b""
    while True:
        until_s = time.monotonic() + STUCK_S
        while HEAD_END not in found:
            news = connection.recv(HEAD_MAX)
            found += news
            if not news or len(found) > 2 * HEAD_MAX or time.monotonic() > until_s:
                return
        head, end, found = found.partition(HEAD_END)
        yield Request(head + end)
