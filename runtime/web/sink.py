"""The sink of the recorder process that feeds the live page."""

from __future__ import annotations

import threading
from collections import deque
from multiprocessing.connection import Connection
from typing import Final

from runtime.recording.sinks import send

WAITING_MAX: Final = 256  # messages: 2 s of a run
END_S: Final = 1.0


class WebSink:
    """Forwards messages to the live page's process. Drops them while the page is behind."""

    def __init__(self, feed: int) -> None:
        """`feed` is the descriptor of the connection to the page."""
        self._feed = Connection(feed, readable=False)
        self._waiting: deque[object] = deque()
        self._news = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._forward, name="page", daemon=True)
        self._thread.start()

    def take(self, message: object) -> None:
        """Queue a message if there is room. Never waits."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.append(message)
            self._news.set()

    def close(self) -> None:
        """Send the rest, unless the page is stuck."""
        self._ended = True
        self._news.set()
        self._thread.join(END_S)

    def _forward(self) -> None:
        try:
            while not self._ended or self._waiting:
                self._news.wait()
                self._news.clear()
                batch = [self._waiting.popleft() for _ in range(len(self._waiting))]
                send(self._feed, batch)
        except OSError:
            pass  # the page has ended
        finally:
            self._feed.close()
