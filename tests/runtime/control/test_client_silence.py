"""The policy's side notices a control process that sends no ticks, by its own clock."""

from __future__ import annotations

import socket
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import runtime.control.client as client_module
from runtime.control.client import ARMING_LOST_S, CONTROL_LOST_S, ControlClient
from runtime.control.notes import Note
from runtime.control.record import TickFacts
from runtime.control.wire import NOTE, Link, Tick, pack_json
from runtime.fit import check_fit
from runtime.mailbox import Mailboxes, StateMsg
from runtime.safety.safety import State
from tests.runtime.conftest import manifest, run_config
from v2a.clock import FakeClock
from v2a.errors import SafetyFault
from v2a.spans import SpanRing


class CreepingClock(FakeClock):
    """A clock that advances by 50 ms each time somebody looks at it."""

    def now_ns(self) -> int:
        self.advance_ns(50_000_000)
        return super().now_ns()


class Rig:
    """A client on a fake clock, and the control process's end of its link."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.peer = Link(theirs)
        process: Any = SimpleNamespace(pid=0, kill=lambda: None, wait=lambda timeout_s=None: 0)
        monkeypatch.setattr(client_module, "_spawn", lambda page: (process, Link(ours)))
        self.clock, self.boxes, config = CreepingClock(), Mailboxes(), run_config()
        limits = check_fit(config, manifest())
        self.client = ControlClient("real", limits, config, self.boxes, self.clock, SpanRing())
        self.peer.send(pack_json(NOTE, Note(ready=True)))
        self.client.open()
        self.ticks = 0

    def tick(self) -> None:
        self.ticks += 1
        now_ns, angles = self.clock.now_ns(), np.zeros(2)
        state = StateMsg(self.ticks, now_ns, now_ns, 0, 0, angles, angles)
        self.peer.send(Tick(self.ticks, 0, (0, 0, 0), TickFacts(), state).pack())

    def run(self, seconds: float, ticking: bool) -> None:
        """Let the client exchange packets ten times a second."""
        left = round(seconds * 10)

        def stopping() -> bool:
            nonlocal left
            left -= 1
            self.clock.advance_ns(100_000_000)
            if ticking:
                self.tick()
            return left < 0

        try:
            self.client.run(stopping)
        finally:
            self.peer.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_a_control_process_without_ticks_is_lost_and_named(rig: Rig) -> None:
    rig.tick()
    with pytest.raises(
        SafetyFault, match=r"control process was lost: .* no tick for 2\.\d s"
    ) as end:
        rig.run(CONTROL_LOST_S + 1, ticking=False)
    assert end.value.exit_code == 7
    assert rig.client.safety.state is State.FAULT  # never "armed" with the state of long ago
    assert rig.client.torque_fault is not None
    assert "cut the motors' power" in rig.client.torque_fault


def test_a_control_process_that_ticks_is_not_lost(rig: Rig) -> None:
    rig.run(3 * CONTROL_LOST_S, ticking=True)
    assert rig.client.ticks > 50


def test_a_long_arming_is_waited_for(rig: Rig) -> None:
    rig.client.request("arm")
    with pytest.raises(SafetyFault, match=r"no tick for 10\.\d s"):
        rig.run(ARMING_LOST_S + 1, ticking=False)
