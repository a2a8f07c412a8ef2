"""A chain of five servos, and ways to reach it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.bus import VirtualBus
from hw_drivers.virtual.loopback import LoopbackPort
from hw_drivers.virtual.pty import PtyServer
from v2a.clock import FakeClock

XL430 = MODELS["xl430-w250"]


class TamperedPort(LoopbackPort):
    """A loopback whose answers pass through `tamper(request, answer)` first."""

    def __init__(self, chain: VirtualBus[Any], tamper: Callable[[bytes, bytes], bytes]) -> None:
        super().__init__(chain)
        self._tamper = tamper

    def write(self, data: bytes) -> None:
        super().write(data)
        self._received = self._tamper(data, self._received)


@pytest.fixture
def chain() -> VirtualDynamixelBus:
    return VirtualDynamixelBus([VirtualDynamixel(XL430, servo_id) for servo_id in (1, 2, 3, 4, 5)])


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def bus(chain: VirtualDynamixelBus, clock: FakeClock) -> DynamixelBus:
    return DynamixelBus(LoopbackPort(chain), clock, dict.fromkeys(range(1, 6), XL430))


@pytest.fixture
def tampered_bus(
    chain: VirtualDynamixelBus, clock: FakeClock
) -> Callable[[Callable[[bytes, bytes], bytes]], DynamixelBus]:
    def make(tamper: Callable[[bytes, bytes], bytes]) -> DynamixelBus:
        return DynamixelBus(TamperedPort(chain, tamper), clock, dict.fromkeys(range(1, 6), XL430))

    return make


@pytest.fixture
def pty(chain: VirtualDynamixelBus) -> Iterator[PtyServer]:
    server = PtyServer(chain)
    yield server
    server.close()
