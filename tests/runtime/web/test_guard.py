"""Who may see the live page and press its button."""

from __future__ import annotations

import socket
from email.message import Message

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.web.guard import BUTTON_HEADER, Address, Guard, listen, new_token, parse_address
from runtime.web.start import page_address
from v2a.errors import ConfigError

HERE = Guard(token=None)
TOKEN = new_token()
TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)


def headers(**values: str) -> Message[str, str]:
    message: Message[str, str] = Message()
    for name, value in values.items():
        message[name.replace("_", "-")] = value
    return message


PRESS = {BUTTON_HEADER: "1"}


@pytest.mark.parametrize("host", ["127.0.0.1:8842", "localhost:9000", "[::1]:8842", "LOCALHOST"])
def test_on_loopback_this_machine_sees_the_page_also_through_an_ssh_tunnel(host: str) -> None:
    assert HERE.refusal(headers(Host=host), button=False) is None
    assert HERE.refusal(headers(Host=host, **PRESS), button=True) is None
    same = headers(Host=host, Origin=f"http://{host}", **PRESS)
    assert HERE.refusal(same, button=True) is None


@pytest.mark.parametrize(
    "host", ["evil.example:8842", "127.0.0.1.evil.example", "localhost.evil.example", "0.0.0.0",
             "localhost@evil.example", "[::1].evil.example", "[", "", "192.168.0.7:8842"],
)  # fmt: skip
def test_a_name_that_was_made_to_point_here_is_refused(host: str) -> None:
    """DNS rebinding: the browser thinks that it talks to the other site and sends its name."""
    assert "Host" in str(HERE.refusal(headers(Host=host, **PRESS), button=True))


def test_without_a_host_it_is_refused() -> None:
    assert HERE.refusal(headers(**PRESS), button=True)


@given(TEXT)
def test_only_our_own_page_may_ask(origin: str) -> None:
    """CSRF: a browser says whose page it is that asks."""
    asked = headers(Host="localhost:8842", Origin=origin, **PRESS)
    refused = HERE.refusal(asked, button=True) is not None
    assert refused == (origin != "http://localhost:8842")


@pytest.mark.parametrize(
    "origin", ["null", "https://localhost:8842", "http://localhost:3000", "http://127.0.0.1:8842"]
)
def test_neither_a_neighbour_on_this_machine_nor_a_file_may(origin: str) -> None:
    asked = headers(Host="localhost:8842", Origin=origin, **PRESS)
    assert "another site" in str(HERE.refusal(asked, button=True))


def test_what_a_form_can_send_presses_nothing() -> None:
    form = headers(Host="localhost:8842", Content_Type="application/x-www-form-urlencoded")
    assert BUTTON_HEADER in str(HERE.refusal(form, button=True))


@given(TEXT)
def test_elsewhere_the_token_and_nothing_else_opens(given_token: str) -> None:
    guard = Guard(TOKEN)
    asked = headers(Host="robot.lan:8842", Authorization=f"Bearer {given_token}")
    assert (guard.refusal(asked, button=True) is None) == (given_token == TOKEN)


def test_elsewhere_the_right_token_opens_and_none_does_not() -> None:
    guard = Guard(TOKEN)
    assert guard.refusal(headers(Authorization=f"Bearer {TOKEN}"), button=True) is None
    assert guard.refusal(headers(Host="127.0.0.1:8842", **PRESS), button=True)
    assert guard.refusal(headers(Authorization=TOKEN), button=False)
    assert guard.refusal(headers(Authorization="Bearer \u00fc"), button=False)


def test_a_token_is_long_and_new_each_time() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(TOKEN) >= 32


@pytest.mark.parametrize(
    ("text", "host", "port", "url"),
    [
        ("8000", "127.0.0.1", 8000, "http://127.0.0.1:8000/"),
        ("localhost:8000", "127.0.0.1", 8000, "http://127.0.0.1:8000/"),
        ("127.0.0.1:0", "127.0.0.1", 0, "http://127.0.0.1:0/"),
        ("[::1]:8000", "::1", 8000, "http://[::1]:8000/"),
        ("0.0.0.0:1", "0.0.0.0", 1, f"http://{socket.gethostname()}:1/"),
    ],
)
def test_addresses(text: str, host: str, port: int, url: str) -> None:
    address = parse_address(text)
    assert (address.host, address.port, address.url) == (host, port, url)


NO_ADDRESSES = ("", "robot.yaml", "robot.lan:80", ":80", "1.2.3.4:", "::1:80", "[::1", "[v]:1",
                "127.0.0.1:8000/x", " 8000", "65536", "-1")  # fmt: skip


@pytest.mark.parametrize("text", NO_ADDRESSES)
def test_what_is_no_address_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"such as 127\.0\.0\.1:8842"):
        parse_address(text)


@pytest.mark.parametrize("text", ["0.0.0.0:8842", "192.168.0.7:8842", "[::]:8842"])
def test_beyond_this_machine_only_on_purpose(text: str) -> None:
    with pytest.raises(ConfigError, match="add --web-remote"):
        page_address(text, remote=False)
    assert page_address(text, remote=True).port == 8842


def test_a_port_that_is_taken() -> None:
    taken = pytest.raises(ConfigError, match="Address already in use; give another port")
    with listen(Address("127.0.0.1", 0)) as first, taken:
        listen(Address("127.0.0.1", first.getsockname()[1]))
