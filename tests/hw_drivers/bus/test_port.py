"""Serial ports on a pseudo terminal: bytes, pace, and every way to lose one."""

from __future__ import annotations

import os
import select
import termios
import time
from pathlib import Path
from typing import Any

import pytest
import serial

from hw_drivers.bus.line_rate import get_baud
from hw_drivers.bus.port import RateError, SerialPort, shorten_latency_timer, stable_path
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.packet import make_ping, make_sync_read
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.virtual.pty import PtyServer
from v2a.clock import MonotonicClock
from v2a.errors import PortError

pytestmark = pytest.mark.real_time

IDS = (1, 2, 3, 4, 5)
SECOND = 5.0  # longer than any answer takes


def test_the_bus_works_over_a_terminal(pty: PtyServer) -> None:
    port = SerialPort(pty.path, 1_000_000)
    models = dict.fromkeys(IDS, MODELS["xl430-w250"])
    bus = DynamixelBus(port, MonotonicClock(), models, timeout_s=SECOND)
    bus.sync_write("goal_position", IDS, [1001, 1002, 1003, 1004, 1005])
    assert bus.sync_read("goal_position", IDS).raw.tolist() == [1001, 1002, 1003, 1004, 1005]
    bus.close()


def test_no_bytes_are_no_error(pty: PtyServer) -> None:
    port = SerialPort(pty.path, 1_000_000)
    assert port.read(0.001) == b""
    port.close()


def test_reset_input_forgets_what_came() -> None:
    far_end, near_end = os.openpty()
    port = SerialPort(os.ttyname(near_end), 1_000_000)
    os.write(far_end, b"old")
    select.select([near_end], [], [], SECOND)
    port.reset_input()
    os.write(far_end, b"new")
    assert port.read(SECOND) == b"new"
    port.close()
    os.close(far_end)
    os.close(near_end)


@pytest.mark.parametrize("baud", [9_600, 1_000_000])  # the wire dominates; the servos do
def test_answers_are_not_faster_than_the_wire(chain: VirtualDynamixelBus, baud: int) -> None:
    server = PtyServer(chain, baud)
    port = SerialPort(server.path, baud)
    request = make_sync_read(132, 4, IDS)
    start_ns = time.monotonic_ns()
    port.write(request)
    received = b""
    while len(received) < 5 * 15:
        received += port.read(SECOND)
    wire_ns = (len(request) + len(received)) * (10 * 1_000_000_000 // baud)
    return_delay_ns = 5 * 500_000  # as it leaves the factory
    assert time.monotonic_ns() - start_ns >= wire_ns + return_delay_ns
    port.close()
    server.close()


def test_a_missing_port_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(PortError, match=r"ttyNONE: no such serial port \(found: .+\); plug it in"):
        SerialPort(str(tmp_path / "ttyNONE"), 1_000_000)


def test_a_busy_port_is_one_clear_line(pty: PtyServer) -> None:
    first = SerialPort(pty.path, 1_000_000)
    with pytest.raises(PortError, match="in use by another program"):
        SerialPort(pty.path, 1_000_000)
    first.close()
    SerialPort(pty.path, 1_000_000).close()


def test_a_file_is_not_a_port(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a port")
    with pytest.raises(PortError, match=r"notes.txt: cannot be opened at 57600 baud: Could not"):
        SerialPort(str(path), 57_600)


def test_a_forbidden_port_names_the_group(monkeypatch: pytest.MonkeyPatch, pty: PtyServer) -> None:
    def forbidden(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", forbidden)  # as root, no file mode would do
    with pytest.raises(PortError, match="no permission; add yourself: sudo usermod -aG dialout"):
        SerialPort(pty.path, 1_000_000)


def refuse_bother(fd: int, when: int, attributes: list[Any]) -> None:
    """tcsetattr() as glibc has it since 2.42 (pyserial/pyserial#805)."""
    if attributes[4] == 0o010000:
        raise termios.error(22, "Invalid argument")
    TCSETATTR(fd, when, attributes)


TCSETATTR = termios.tcsetattr


@pytest.mark.parametrize("baud", [128_000, 250_000, 1_000_000, 4_500_000])
def test_every_rate_is_set_also_where_the_c_library_knows_it_not(
    pty: PtyServer, monkeypatch: pytest.MonkeyPatch, baud: int
) -> None:
    monkeypatch.setattr(termios, "tcsetattr", refuse_bother)
    port = SerialPort(pty.path, baud)
    far_end = os.open(pty.path, os.O_RDWR | os.O_NOCTTY)
    assert get_baud(far_end) == baud
    os.close(far_end)
    port.close()


def refused_rate(*_args: object, **_options: object) -> None:
    raise termios.error(22, "Invalid argument")


@pytest.mark.parametrize(
    ("what", "baud"),
    [
        (refused_rate, 4_000_000),
        (lambda *_args, **_options: (_ for _ in ()).throw(ValueError("Invalid baud")), 4_000_000),
        (
            lambda *_args, **_options: (_ for _ in ()).throw(
                serial.SerialException("Could not configure port: (22, 'Invalid argument')")
            ),
            4_000_000,
        ),
    ],
)
def test_a_rate_that_is_refused_is_told_from_a_port_that_is_gone(
    pty: PtyServer, monkeypatch: pytest.MonkeyPatch, what: Any, baud: int
) -> None:
    monkeypatch.setattr(serial.Serial, "open", what)
    with pytest.raises(RateError, match=r"this adapter cannot do 4000000 baud \(.+\); use another"):
        SerialPort(pty.path, baud)


def test_a_driver_that_sets_another_rate_is_found_out(
    pty: PtyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hw_drivers.bus.port.get_baud", lambda _fd: 921_600)
    with pytest.raises(RateError, match=r"cannot do 1000000 baud .its driver sets 921600 instead"):
        SerialPort(pty.path, 1_000_000)
    monkeypatch.setattr("hw_drivers.bus.port.get_baud", lambda _fd: 1_008_000)
    SerialPort(pty.path, 1_000_000).close()


@pytest.mark.parametrize("use", ["write", "read", "reset_input"])
def test_a_port_that_vanishes_says_so(pty: PtyServer, use: str) -> None:
    port = SerialPort(pty.path, 1_000_000)
    port.write(make_ping(1))
    assert port.read(SECOND)
    pty.hang_up()
    actions = {
        "write": lambda: port.write(make_ping(1)),
        "read": lambda: port.read(SECOND),
        "reset_input": port.reset_input,
    }
    with pytest.raises(PortError, match=r"vanished or was closed \(.+\); check the cable"):
        actions[use]()
    port.close()


def test_a_closed_port_says_so(pty: PtyServer) -> None:
    port = SerialPort(pty.path, 1_000_000)
    port.close()
    port.close()
    for action in (lambda: port.write(b"x"), lambda: port.read(0.0), port.reset_input):
        with pytest.raises(PortError, match="vanished or was closed"):
            action()


def test_a_client_that_never_reads_does_not_block_the_servos(pty: PtyServer) -> None:
    port = SerialPort(pty.path, 1_000_000)
    for _ in range(400):
        port.write(make_ping(1))
    pty.close()  # waits for the thread
    with pytest.raises(PortError, match="vanished"):
        port.write(make_ping(1))
    port.close()


def test_a_line_that_takes_no_bytes_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A controller that waited for it could not turn anything off."""
    monkeypatch.setattr("hw_drivers.bus.port._WRITE_TIMEOUT_S", 0.05)
    far_end, near_end = os.openpty()  # nobody reads the far end
    port = SerialPort(os.ttyname(near_end), 1_000_000)
    with pytest.raises(PortError, match="it takes no more bytes"):
        port.write(bytes(1 << 20))
    os.close(far_end)
    port.close()
    os.close(near_end)


@pytest.fixture
def adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The latency timer of the adapter behind /dev/ttyUSB0, as it is born."""
    timer = tmp_path / "ttyUSB0" / "latency_timer"
    timer.parent.mkdir()
    timer.write_text("16\n")
    monkeypatch.setattr("hw_drivers.bus.port._USB_SERIAL", tmp_path)
    return timer


def test_the_latency_timer_is_shortened(adapter: Path) -> None:
    assert shorten_latency_timer("/dev/ttyUSB0") == 1
    assert adapter.read_text() == "1"


def test_a_latency_timer_that_stays_is_not_taken_for_short(
    adapter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(*_args: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "write_text", forbidden)
    assert shorten_latency_timer("/dev/ttyUSB0") == 16


def test_a_port_without_a_latency_timer(adapter: Path, pty: PtyServer) -> None:
    assert shorten_latency_timer("/dev/ttyACM0") is None
    port = SerialPort(pty.path, 1_000_000)
    assert (port.latency_timer_ms, port.latency_ns, port.ns_per_byte) == (None, 0, 10_000)
    port.close()


def test_a_port_is_known_by_its_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hw_drivers.bus.port._BY_ID", tmp_path)
    assert stable_path("/dev/null") is None
    (tmp_path / "usb-FTDI_one-if00-port0").symlink_to("/dev/null")
    assert stable_path("/dev/null") == str(tmp_path / "usb-FTDI_one-if00-port0")
    assert stable_path("/dev/zero") is None
