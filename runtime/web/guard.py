"""Who may see the page and press its button.

On loopback: whoever is on this machine, but no web page that this machine's browser has open. A
page of another site could send a request here (CSRF), or have its own name resolve to 127.0.0.1 and
so count as the same site (DNS rebinding). Against the first, `Origin` and a header that only a
script of our own page can set; against the second, `Host` must be a name of the loopback.

Anywhere else: whoever has the token. It travels in a header that no browser adds by itself, so
another site's page can't borrow it.
"""

from __future__ import annotations

import hmac
import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from email.message import Message
from typing import Final

from v2a.errors import ConfigError

PORT: Final = 8842
HERE: Final = f"127.0.0.1:{PORT}"
BUTTON_HEADER: Final = "X-V2A-Button"  # a form can't send it, and for a script of another site it
# asks for a permission (CORS preflight) that is never given
_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:\d{1,5})?", re.ASCII | re.I)
_TOKEN_BYTES: Final = 24
_ADDRESS: Final = re.compile(r"((?P<host>\[[^\]]+\]|[^:]+):)?(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen; `host` is an IP address."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """Of the page; this machine's name stands for all of its addresses."""
        everywhere = ipaddress.ip_address(self.host).is_unspecified
        return f"http://{Address(socket.gethostname(), self.port) if everywhere else self}/"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """`HOST:PORT` or `PORT`; HOST is an IP address ([...] around IPv6) or localhost.

    Raises ConfigError on anything else: a name could stand for any address.
    """
    found = _ADDRESS.fullmatch(text)
    try:
        if found is None or int(found["port"]) > 65535:
            raise ValueError(text)
        name = (found["host"] or "localhost").strip("[]")
        host = "127.0.0.1" if name == "localhost" else str(ipaddress.ip_address(name))
    except ValueError as error:
        raise ConfigError(
            f"--web {text}: give an IP address and a port, such as 127.0.0.1:{PORT}, or a port; "
            "without either, --web comes last"
        ) from error
    return Address(host, int(found["port"]))


def listen(address: Address) -> socket.socket:
    """A listening socket. Raises ConfigError where the address can't be had."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # its own text names the address again
        raise ConfigError(
            f"--web {address}: {why}; give another port, or 0 for any that is free"
        ) from error


def new_token() -> str:
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Guard:
    """`token` None: the page is on loopback."""

    token: str | None

    def refusal(self, headers: Message[str, str], button: bool) -> str | None:
        """Why a request with these headers is refused; None where it is not. Pure."""
        if self.token is not None:
            given = headers.get("Authorization", "").encode()
            right = hmac.compare_digest(given, f"Bearer {self.token}".encode())
            return None if right else "the token is missing or wrong: v2a run printed it"
        host = headers.get("Host", "")
        if not _LOOPBACK.fullmatch(host):
            return "the Host header names another machine; open the page as 127.0.0.1"
        origin = headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return "asked for by a page of another site"
        if button and BUTTON_HEADER not in headers:
            return f"a press must carry the header {BUTTON_HEADER}"
        return None
