"""Measures the time from a press of the live page's STOP to torque off, under load.

python benchmarks/press.py [--rounds 10] [--only LOAD] [--json]

Each round starts a control process that holds two servos of a virtual bus, and the live page beside
it. A stand-in for the policy sends signs of life. Then the load starts, and a press comes over a
connection of its own and over one that was open before. The time ends when the servos' own
registers say that torque is off. The process that presses and watches has real-time priority where
that is permitted, so it adds no waiting of its own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
from kills import PATIENCE_S, config, until

from hw_drivers.dynamixel.models import MODELS
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.pty import PtyServer
from runtime.control.client import ControlClient
from runtime.mailbox import Mailboxes
from runtime.safety.motion_limiter import Limits
from runtime.web.guard import BUTTON_HEADER, Address
from runtime.web.start import LivePage
from runtime.web.view import About
from tools.live_robot import benchmark_parser, scheduled_first
from v2a.clock import MonotonicClock
from v2a.errors import V2AError
from v2a.names import MACHINE_STAGES
from v2a.spans import SpanRing

BOUND_S = 0.1
WARM_S = 1.0
JOINTS = ("joint 1", "joint 2")
SPIN = "while True: pass"
# Connects as fast as it can, without ever sending anything, and keeps 500 connections open.
STORM = """
import socket, sys
held = []
while True:
    one = socket.socket()
    one.setblocking(False)
    try:
        one.connect(("127.0.0.1", int(sys.argv[1])))
    except BlockingIOError:
        pass
    except OSError:
        one.close()
        continue
    held.append(one)
    if len(held) > 500:
        held.pop(0).close()
"""
# Sends requests that are refused, each over a connection of its own.
REFUSED = """
import socket, sys
while True:
    try:
        with socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=2) as one:
            one.sendall(b"GET /live HTTP/1.1\\r\\nHost: evil.example\\r\\n\\r\\n")
            one.recv(100)
    except OSError:
        pass
"""
# Looks at the newest status again and again, over a connection that stays open.
VIEWER = """
import http.client, sys
while True:
    try:
        one = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
        while True:
            one.request("GET", "/live")
            one.getresponse().read()
    except (OSError, http.client.HTTPException):
        pass
"""
# A byte at a time, for a request that never ends.
SLOW = """
import socket, sys, time
held = []
while True:
    while len(held) < 300:
        one = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        one.sendall(b"GET /live HTTP/1.1\\r\\n")
        held.append(one)
    for one in [*held]:
        try:
            one.sendall(b"X")
        except OSError:
            held.remove(one)
    time.sleep(0.02)
"""
LOADS = {
    "none": ("", 0),
    "busy": (SPIN, 8),
    "storm": (STORM, 4),
    "refused": (REFUSED, 8),
    "viewers": (VIEWER, 20),
    "slow": (SLOW, 1),
}


def policy(port: str) -> None:
    """The policy's process: starts page and control process, arms, and says the page's port."""
    wide, names = np.ones(2), JOINTS
    settings = config(port)
    safety = settings.safety.model_copy(
        update={"hold_max_s": 600, "policy_silent_s": 5, "policy_lost_s": 10}
    )
    settings = settings.model_copy(update={"safety": safety})
    limits = Limits(names, -wide, wide, wide, 250 * wide)
    control = ControlClient("real", limits, settings, Mailboxes(), MonotonicClock(), SpanRing())
    with LivePage(Address("127.0.0.1", 0), remote=False) as page:
        try:
            page.start(control, About("two", "none", "none", names, 65.0, False, MACHINE_STAGES))
            control.open()
            control.request("arm")
            control.run(lambda: False)
        except V2AError as error:
            print(error, file=sys.stderr, flush=True)
        finally:
            control.close()


class Rig:
    """Servos in this process, and the policy's process that holds them."""

    def __init__(self, folder: Path) -> None:
        self.bus = VirtualDynamixelBus(VirtualDynamixel(MODELS["xl430-w250"], i) for i in (1, 2))
        with scheduled_first():
            self.pty = PtyServer(self.bus, link=folder / "port", moves=True)
        self.policy = subprocess.Popen(
            [sys.executable, __file__, "--policy", self.pty.path],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "V2A_STATE_DIR": str(folder)},  # a press stays in force
        )
        assert self.policy.stderr is not None
        url = self.policy.stderr.readline().rpartition(":")[2]
        self.port = int(url.strip().rstrip("/"))
        until(lambda: self.torque() == [1, 1] or self.policy.poll() is not None)
        if self.policy.poll() is not None:
            raise SystemExit(f"the policy's process did not arm: {self.policy.stderr.read()}")

    def torque(self) -> list[int]:
        with self.bus.lock:
            return [servo["torque_enable"] for servo in self.bus.servos.values()]

    def close(self) -> None:
        self.policy.kill()
        self.policy.communicate(timeout=PATIENCE_S)
        self.pty.close()


@contextlib.contextmanager
def load(name: str, port: int) -> Iterator[None]:
    """The processes of a load, for as long as it takes."""
    script, number = LOADS[name]
    command = [sys.executable, "-c", script, str(port)]
    processes = [subprocess.Popen(command) for _ in range(number)]
    try:
        time.sleep(WARM_S)
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


def press(connection: HTTPConnection) -> dict[str, Any]:
    """Press STOP. Raises OSError if no answer comes."""
    connection.request("POST", "/estop", headers={BUTTON_HEADER: "1"})
    answer: dict[str, Any] = json.loads(connection.getresponse().read())
    return answer


def play(name: str, open_before: bool) -> tuple[float, str]:
    """One round: seconds to torque off, and what was wrong, if anything."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        try:
            connection = HTTPConnection("127.0.0.1", rig.port, timeout=PATIENCE_S)
            with load(name, rig.port):
                if open_before:
                    connection.request("GET", "/live")
                    connection.getresponse().read()
                answers: list[dict[str, Any]] = []
                with scheduled_first():
                    presser = threading.Thread(target=lambda: answers.append(press(connection)))
                    start_s = time.monotonic()
                    presser.start()
                    until(lambda: rig.torque() == [0, 0])
                    seconds = time.monotonic() - start_s
                presser.join(PATIENCE_S)
                confirmed = answers and answers[0]["confirmed"]
                return seconds, "" if confirmed else f"the answer was {answers}"
        finally:
            rig.close()


def measure(name: str, open_before: bool, rounds: int) -> dict[str, Any]:
    """A row of the table."""
    found = [play(name, open_before) for _ in range(rounds)]
    seconds = np.array([each for each, _ in found])
    return {
        "load": name,
        "connection": "open" if open_before else "new",
        "rounds": rounds,
        "median_ms": 1e3 * float(np.median(seconds)),
        "max_ms": 1e3 * float(seconds.max()),
        "misses": int((seconds > BOUND_S).sum()),
        "wrong": [wrong for _, wrong in found if wrong],
    }


def main() -> int:
    parser = benchmark_parser(__doc__, rounds=10, only=LOADS)
    parser.add_argument("--policy", metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.policy:
        policy(arguments.policy)
        return 0
    rows = []
    for name in arguments.only or LOADS:
        for open_before in (False, True):
            row = measure(name, open_before, arguments.rounds)
            rows.append(row)
            print(
                f"{name:<8} {row['connection']:<5} {row['rounds']:>4} rounds  "
                f"median {row['median_ms']:6.0f} ms  max {row['max_ms']:6.0f} ms  "
                f"above {1e3 * BOUND_S:.0f} ms: {row['misses']}"
                + "".join(f"\n    {wrong}" for wrong in row["wrong"]),
                file=sys.stderr if arguments.json else sys.stdout,
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"rows": rows}))
    return int(any(row["misses"] or row["wrong"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
