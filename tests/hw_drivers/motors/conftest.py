"""Virtual servos behind a serial port, and the commands that meet them there."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner, Result

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.pty import PtyServer
from v2a.cli import cli

Serve = Callable[..., PtyServer]
XL330 = MODELS["xl330-m288"]
MEASURED = ("present_", "moving", "realtime", "trajectory")


def motors(*words: object, keys: str | None = None) -> Result:
    """`v2a motors WORDS`, in this process."""
    return CliRunner().invoke(cli, ["motors", *map(str, words)], input=keys)


@contextmanager
def process(*words: object) -> Iterator[subprocess.Popen[str]]:
    """The same as a process of its own."""
    started = subprocess.Popen(
        [sys.executable, "-m", "v2a", "motors", *map(str, words)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield started
    finally:
        started.kill()
        started.communicate()


def settings_of(line: VirtualBus[Any]) -> dict[int, dict[str, int]]:
    """Every register but the measured ones: what a command that writes nothing leaves alone."""
    with line.lock:
        return {
            servo_id: {
                name: servo[name]
                for name in servo.model.items
                if not any(part in name for part in MEASURED)
            }
            for servo_id, servo in line.servos.items()
        }


@pytest.fixture(autouse=True)
def scan_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real servos wait for the 3 ms of their id, virtual ones answer a scan at once."""
    for family in ("dynamixel", "feetech"):
        monkeypatch.setattr(f"hw_drivers.{family}.bus._SCAN_TIMEOUT_S", 0.25)


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Starts virtual buses, and ends them."""
    servers = []

    def start(line: VirtualBus[Any], **options: Any) -> PtyServer:
        servers.append(PtyServer(line, **options))
        return servers[-1]

    yield start
    for server in servers:
        server.close()


@pytest.fixture
def chain() -> VirtualDynamixelBus:
    """Three servos as v2a needs them."""
    servos = [VirtualDynamixel(XL330, servo_id) for servo_id in (1, 2, 3)]
    for servo in servos:
        assert servo.write(XL330.items["return_delay_time"].address, b"\0") == 0
    return VirtualDynamixelBus(servos)
