"""Each scripted fault, as our robot takes it, in both protocols.

`tools/fault_table.py` compares the peers.

The servos are in a process of their own, and so is the client whose host is stopped.
"""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
import tty

import pytest

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.faults import FAULTS
from tools.fault_table import CLIENTS, IDS, NAMES, Ours, Row, servos, suffer

pytestmark = pytest.mark.real_time

PATIENCE_S = 0.5  # more than a late answer, on a busy machine
RETURNS_S = 10.0  # longer than a replugged adapter is away
ALL: list[int] = [*IDS]
NOBODY: list[int] = []
RECOVERED = ("ok", ALL)

EXPECTED = {
    "none": RECOVERED,
    "drop": RECOVERED,
    "crc": RECOVERED,
    "truncate": RECOVERED,
    "noise": RECOVERED,
    "stale": RECOVERED,
    "echo": RECOVERED,
    "late": RECOVERED,
    "alert": ("hardware error: joint1 (id 1): overload", NOBODY),
    "hang_up": ("vanished or was closed", NOBODY),
    "replug": ("vanished or was closed", NOBODY),
    "dead": ("no answer from 2", [1, 3]),
}


def test_the_table_has_every_fault() -> None:
    assert [*EXPECTED] == [*NAMES]
    assert {*FAULTS} < {*NAMES}


@pytest.fixture(scope="module", params=CLIENTS)
def ours(request: pytest.FixtureRequest) -> dict[str, Row]:
    protocol = request.param
    rows = {}
    with servos(protocol) as (path, plant):
        for fault in NAMES:
            plant("fresh")
            client = Ours(path, protocol, PATIENCE_S)
            wait_s = RETURNS_S if fault == "replug" else 0.0
            rows[fault] = suffer("ours", fault, client.read, plant, wait_s)
            client.robot.close()
    return rows


@pytest.mark.parametrize("fault", NAMES)
def test_what_our_robot_makes_of_it(ours: dict[str, Row], fault: str) -> None:
    row = ours[fault]
    assert (row.reported, row.valid) == EXPECTED[fault]
    assert row.wrong == [], "a value that is not the servo's"


def test_a_replugged_adapter_is_back_by_itself(ours: dict[str, Row]) -> None:
    assert ours["replug"].good_again_ms is not None
    assert ours["hang_up"].good_again_ms is None


CLIENT = """
import json, sys, threading
from hw_drivers.dynamixel.bus import DynamixelBus
from hw_drivers.dynamixel.models import MODELS
from hw_drivers.bus.port import SerialPort
from v2a.clock import MonotonicClock
clock = MonotonicClock()
models = dict.fromkeys((1, 2, 3), MODELS["xl330-m288"])
bus = DynamixelBus(SerialPort(sys.argv[1], 1_000_000), clock, models)
def hog():
    while True:
        sum(range(100))
for _ in range(int(sys.argv[2])):
    threading.Thread(target=hog, daemon=True).start()
print("ready", flush=True)
for _ in sys.stdin:
    start_ns = clock.now_ns()
    found = bus.sync_read("present_position", (1, 2, 3))
    print(json.dumps([start_ns, found.valid.tolist()]), flush=True)
"""
ROUNDS = 25
LATE_NS = 5_000_000  # a quarter of the client's patience: then it was not the client's fault


class Bench:
    """A client in a process of its own, and its servos here, which answer when told to."""

    def __init__(self, hogs: int) -> None:
        self._far_end, self._near_end = os.openpty()
        tty.setraw(self._near_end)
        self._chain = VirtualDynamixelBus(VirtualDynamixel(MODELS["xl330-m288"], i) for i in IDS)
        self.client = subprocess.Popen(
            [sys.executable, "-c", CLIENT, os.ttyname(self._near_end), str(hogs)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._line() == "ready\n"

    def _line(self) -> str:
        assert self.client.stdout
        return self.client.stdout.readline()

    def ask(self) -> bytes:
        """Let the client begin a read; its request."""
        assert self.client.stdin
        print("go", file=self.client.stdin, flush=True)
        return os.read(self._far_end, 4096)

    def answer(self, request: bytes) -> int:
        """Answer it; when that was."""
        os.write(self._far_end, self._chain.respond(request))
        return time.monotonic_ns()

    def outcome(self) -> tuple[int, list[bool]]:
        """(when the client began, who was valid); what it asks again is answered meanwhile."""
        assert self.client.stdout
        while not select.select([self.client.stdout], [], [], 0.001)[0]:
            if select.select([self._far_end], [], [], 0)[0]:
                self.answer(os.read(self._far_end, 4096))
        start_ns, valid = json.loads(self._line())
        return start_ns, valid

    def close(self) -> None:
        with self.client:
            self.client.kill()
        for fd in (self._far_end, self._near_end):
            os.close(fd)


@pytest.mark.parametrize(
    ("stop_s", "hogs"), [pytest.param(0.06, 0, id="SIGSTOP"), pytest.param(0.0, 2, id="GIL")]
)
def test_a_host_that_stands_still_makes_no_bus_error(stop_s: float, hogs: int) -> None:
    """The deadline passes while the client can't look, and the answers wait in the kernel."""
    bench = Bench(hogs)
    rounds = 0
    while rounds < ROUNDS:
        request = bench.ask()
        if stop_s:
            bench.client.send_signal(signal.SIGSTOP)
        answered_ns = bench.answer(request)
        if stop_s:
            time.sleep(stop_s)
            bench.client.send_signal(signal.SIGCONT)
        start_ns, valid = bench.outcome()
        if answered_ns - start_ns < LATE_NS or hogs:  # else this process was late
            assert valid == [True, True, True], f"round {rounds}"
            rounds += 1
    bench.close()
