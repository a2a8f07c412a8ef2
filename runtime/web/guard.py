"""Decides which requests may read the live page or press its button.

On loopback, every user of this machine may. A page of another site in this machine's browser may
not. Such a page could send a request here (CSRF), so `Origin` is checked, and a press needs a
header that only a script of our own page can set. Its name could also resolve to 127.0.0.1 and
count as the same site (DNS rebinding), so `Host` must be a loopback name.

On any other address, everyone with the token may. Browsers never add the token's header by
themselves, so a page of another site can't use it.
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
# A form can't send this header. A script of another site needs a permission to send it (CORS
# preflight), which the server never gives.
BUTTON_HEADER: Final = "X-V2A-Button"
_LOOPBACK: Final = re.compile(r"(127\.0\.0\.1|\[::1\]|localhost)(:\d{1,5})?", re.ASCII | re.I)
_TOKEN_BYTES: Final = 24
_ADDRESS: Final = re.compile(r"((?P<host>\[[^\]]+\]|[^:]+):)?(?P<port>\d{1,5})", re.ASCII)


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen on. `host` is an IP address."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach the address."""
        return ipaddress.ip_address(self.host).is_loopback

    @property
    def url(self) -> str:
        """URL of the page. If `host` means all addresses, it holds the machine's name."""
        everywhere = ipaddress.ip_address(self.host).is_unspecified
        return f"http://{Address(socket.gethostname(), self.port) if everywhere else self}/"

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_address(text: str) -> Address:
    """Parse `HOST:PORT` or `PORT`; HOST is an IP address ([...] around IPv6) or localhost.

    Raises ConfigError on anything else, because a name could resolve to any address.
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
    """Open a listening socket. Raises ConfigError if the address is not available."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    try:
        return socket.create_server((address.host, address.port), family=family)
    except OSError as error:
        why = os.strerror(error.errno or 0)  # the error's own text repeats the address
        raise ConfigError(
            f"--web {address}: {why}; give another port, or 0 for any free port"
        ) from error


def new_token() -> str:
    """Make a secret for one run that is safe in a URL."""
    return secrets.token_urlsafe(_TOKEN_BYTES)


@dataclass(frozen=True, slots=True)
class Guard:
    """Checks requests. `token` is None if the page is on loopback."""

    token: str | None

    def refusal(self, headers: Message[str, str], button: bool) -> str | None:
        """Return why to refuse a request with these headers, or None to allow it. Pure function."""
        if self.token is not None:
            given = headers.get("Authorization", "").encode()
            right = hmac.compare_digest(given, f"Bearer {self.token}".encode())
            return None if right else "the token is missing or wrong; v2a run printed it"
        host = headers.get("Host", "")
        if not _LOOPBACK.fullmatch(host):
            return "the Host header names another machine; open the page as 127.0.0.1"
        origin = headers.get("Origin")
        if origin is not None and origin != f"http://{host}":
            return "a page of another site sent this request; open the live page itself"
        if button and BUTTON_HEADER not in headers:
            return f"a press must carry the header {BUTTON_HEADER}"
        return None
