"""Runs the live page as a sink of the recorder process, where it takes no time from the policy."""

from __future__ import annotations

import threading

from runtime.web.guard import Address, Guard, listen
from runtime.web.server import Room, Server
from runtime.web.view import About, View
from v2a.clock import MonotonicClock
from v2a.output import say


class WebSink:
    """Serves the live page from its construction until `close`."""

    def __init__(self, address: Address, token: str | None, estop: str, about: About) -> None:
        """Start serving. Raises ConfigError if the address is not available."""
        clock = MonotonicClock()
        listener = listen(address)
        self._view = View(about, clock)
        self._server = Server(listener, Room(self._view, Guard(token), estop, clock))
        threading.Thread(target=self._server.serve_forever, name="web", daemon=True).start()
        url = Address(address.host, listener.getsockname()[1]).url
        key = "" if token is None else f"#{token}"
        say(f"live page: {url}{key}")

    def take(self, message: object) -> None:
        """Update the page's data from a message."""
        self._view.take(message)

    def close(self) -> None:
        """Stop serving, after a moment for viewers to see the end."""
        self._server.end()
