"""Reads HTTP requests and writes answers, without a socket."""

from __future__ import annotations

import io
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any, Final, NamedTuple

HEAD_MAX: Final = 16384  # bytes of a request line and its headers
HEAD_END: Final = b"\r\n\r\n"
TEXT: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {
    "Server": "v2a",
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src blob: data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


class Answer(NamedTuple):
    """Status, content type and body of an answer."""

    status: int
    kind: str
    body: bytes

    def pack(self, close: bool) -> bytes:
        """The bytes of the answer. With `close`, it says that the connection ends."""
        headers = {
            **_HEADERS,
            "Content-Type": self.kind,
            "Content-Length": str(len(self.body)),
            "Connection": "close" if close else "keep-alive",
        }
        lines = [f"HTTP/1.1 {self.status} {HTTPStatus(self.status).phrase}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body


def refusal(status: int, why: str) -> Answer:
    """Refuse with a text."""
    return Answer(status, TEXT, why.encode())


class Request(BaseHTTPRequestHandler):
    """A request, parsed by the standard library. `refused` says what is wrong with it."""

    protocol_version = "HTTP/1.1"

    def __init__(self, head: bytes) -> None:
        """Parse `head`, which ends with an empty line. A body is not read."""
        # The base class would read from a socket and answer there.
        self.refused: Answer | None = None
        self.rfile = io.BytesIO(head)
        self.raw_requestline = self.rfile.readline()
        if not self.parse_request() and self.refused is None:
            self.refused = refusal(HTTPStatus.BAD_REQUEST, "no request")
        if self.refused is None and len(self.headers.get_all("Host", [])) > 1:
            self.refused = refusal(HTTPStatus.BAD_REQUEST, "two Host headers")
        if self.refused is not None or self.command != "GET":
            self.close_connection = True  # there may be a body

    def send_error(self, code: int, message: str | None = None, explain: Any = None) -> None:
        """Keep what the parser finds wrong."""
        self.refused = refusal(code, message or HTTPStatus(code).phrase)

    def handle_expect_100(self) -> bool:
        """Ask for no body."""
        return True


def too_long() -> Answer:
    """Refuse a head that does not end within `HEAD_MAX`."""
    return refusal(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "the request's head is too long")
