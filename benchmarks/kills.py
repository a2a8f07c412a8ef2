"""Measures the time to the safe state after a failure: of policy, control process or cable.

python benchmarks/kills.py [--rounds 100] [--only FAULT] [--json]

Each round starts a policy's process, which moves two servos of a virtual bus through its control
process. When they move, the round causes the failure and watches the servos' own registers. The
configuration gives a time limit. A round is a miss if it takes longer, or if a servo does anything
after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from hw_drivers.dynamixel.models import MODELS, WATCHDOG_TRIPPED
from hw_drivers.dynamixel.virtual_bus import VirtualDynamixelBus
from hw_drivers.dynamixel.virtual_servo import VirtualDynamixel
from hw_drivers.virtual.pty import PtyServer
from runtime.config.robot_yaml import RunConfig
from runtime.control.client import ControlClient
from runtime.control.trajectory import REST_NS
from runtime.mailbox import ChunkMsg, Mailboxes
from runtime.safety.motion_limiter import Limits
from tools.live_robot import benchmark_parser, scheduled_first
from v2a.clock import MonotonicClock
from v2a.errors import V2AError
from v2a.spans import SpanRing

STEP_NS, ROWS, CHUNK_PERIOD_S = 50_000_000, 8, 0.1
WATCHDOG_S, LOST_S, HOLD_S = 0.5, 1.0, 1.0
CHUNK_S = ((ROWS - 1) * STEP_NS + REST_NS) / 1e9
# A stopped host, a servo's three tries to be let go of, a step of the virtual bus.
SLACK_S = 0.5
PATIENCE_S = 30.0


def config(port: str) -> RunConfig:
    """Two servos at 100 Hz. A bus on a busy machine loses answers that a wire would not."""
    joint = {"model": "xl430-w250", "lower_rad": -1, "upper_rad": 1, "velocity_limit_rad_s": 1}
    joints = [joint | {"name": f"joint {i}", "id": i} for i in (1, 2)]
    bus = {"protocol": "dynamixel2", "port": port, "baud": 1_000_000, "watchdog_s": WATCHDOG_S}
    return RunConfig.model_validate(
        {
            "robot": {"name": "two", "bus": bus, "joints": joints},
            "camera": {"source": "none"},
            "control": {"rate_hz": 100, "serial_faults_max": 250},
            "safety": {"policy_lost_s": LOST_S, "hold_max_s": HOLD_S, "state_age_max_s": 2},
            "instruction": "none",
        }
    )


def policy(port: str) -> None:
    """The policy's process: chunks of a slow wave, until a line on stdin says that System 1 hangs.
    Ends with the error that the control process left it."""
    settings, boxes, clock = config(port), Mailboxes(), MonotonicClock()
    wide = np.ones(2)
    limits = Limits(("joint 1", "joint 2"), -wide, wide, wide, 250 * wide)
    control = ControlClient("real", limits, settings, boxes, clock, SpanRing())
    hung = threading.Event()

    def system1() -> None:
        seq = 0
        while not hung.wait(CHUNK_PERIOD_S):
            seq += 1
            now_ns = clock.now_ns()
            t_s = (now_ns + np.arange(ROWS) * STEP_NS) / 1e9
            rows = 0.5 * np.sin(2 * t_s)[:, None] * wide
            boxes.chunk.put(ChunkMsg(seq, now_ns, 0, 0, 0, rows, STEP_NS, 0), now_ns)

    def hear() -> None:
        sys.stdin.readline()
        hung.set()

    try:
        control.open()
        control.request("arm")
        for task in (system1, hear):
            threading.Thread(target=task, daemon=True).start()
        print(control.pid, flush=True)
        control.run(lambda: False)
    except V2AError as error:
        print(f"{type(error).__name__}: {error}", flush=True)
    finally:
        control.close()


class Rig:
    """The robot, here, and the policy's process that moves it."""

    def __init__(self, folder: Path) -> None:
        self.chain = VirtualDynamixelBus(VirtualDynamixel(MODELS["xl430-w250"], i) for i in (1, 2))
        self._over = threading.Event()
        with scheduled_first():
            self.pty: PtyServer = PtyServer(self.chain, link=folder / "port")
            threading.Thread(target=self._let_time_pass, daemon=True).start()
        self.policy: subprocess.Popen[str] = subprocess.Popen(
            [sys.executable, __file__, "--policy", self.pty.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.policy.stdout is not None
        first = self.policy.stdout.readline().strip()
        if not first.isdigit():
            raise SystemExit(f"the policy's process did not start: {first}")
        self.control_pid: int = int(first)

    def last_words(self) -> str:
        out, _ = self.policy.communicate(timeout=PATIENCE_S)
        return out.strip()

    def registers(self, name: str) -> list[int]:
        with self.chain.lock:
            return [servo[name] for servo in self.chain.servos.values()]

    def moving(self) -> bool:
        return any(abs(tick - 2048) > 20 for tick in self.registers("present_position"))

    def limp(self) -> bool:
        return self.registers("torque_enable") == [0, 0]

    def stopped(self) -> bool:
        """By the servos' own watchdog: torque is on, and no goal is taken any more."""
        return all(raw & 0xFF == WATCHDOG_TRIPPED & 0xFF for raw in self.registers("bus_watchdog"))

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.policy.send_signal(signal.SIGCONT)
        self.policy.kill()
        self.policy.communicate()
        self.pty.close()
        self._over.set()

    def _let_time_pass(self) -> None:
        """For the servos, cable or not."""
        before_s = time.monotonic()
        while not self._over.wait(0.005):
            now_s = time.monotonic()
            self.chain.step(now_s - before_s)
            before_s = now_s


@dataclass(frozen=True)
class Fault:
    """What is done, the state that must follow, and within how long by the configuration."""

    what: str
    do: Callable[[Rig], None]
    safe: Callable[[Rig], bool]
    bound_s: float
    words: str  # what the policy's process ends with; "" where it is dead or stopped


def hang_system1(rig: Rig) -> None:
    assert rig.policy.stdin is not None
    rig.policy.stdin.write("hang\n")
    rig.policy.stdin.flush()


FAULTS = {
    "policy_killed": Fault(
        "kill -9 of the policy's process: torque off at once, as its link hangs up",
        lambda rig: rig.policy.kill(),
        Rig.limp,
        SLACK_S,
        "",
    ),
    "policy_hung": Fault(
        "the policy's process stops dead: torque off",
        lambda rig: rig.policy.send_signal(signal.SIGSTOP),
        Rig.limp,
        LOST_S + SLACK_S,
        "",
    ),
    "system1_hung": Fault(
        "no more chunks: to rest, hold, torque off",
        hang_system1,
        Rig.limp,
        CHUNK_S + HOLD_S + SLACK_S,
        "SafetyFault: torque off: held for 1 s: no chunk",
    ),
    "control_killed": Fault(
        "kill -9 of the control process: stopped by the servos' watchdog",
        lambda rig: os.kill(rig.control_pid, signal.SIGKILL),
        Rig.stopped,
        WATCHDOG_S + SLACK_S,
        "SafetyFault: the control process died",
    ),
    "port_unplugged": Fault(
        "the cable comes out: stopped by the servos' watchdog",
        lambda rig: rig.pty.hang_up(),
        Rig.stopped,
        WATCHDOG_S + SLACK_S,
        "PortError:",
    ),
}


@dataclass(frozen=True)
class Outcome:
    """Seconds to the safe state, and what was wrong, if anything."""

    seconds: float
    wrong: str


def play(fault: Fault) -> Outcome:
    """One round."""
    with tempfile.TemporaryDirectory() as folder:
        rig = Rig(Path(folder))
        try:
            until(rig.moving)
            start_s = time.monotonic()
            fault.do(rig)
            until(lambda: fault.safe(rig))
            return Outcome(time.monotonic() - start_s, "; ".join(aftermath(fault, rig)))
        finally:
            rig.close()


def aftermath(fault: Fault, rig: Rig) -> Iterator[str]:
    """What must not be: wrong last words, a control process left behind, torque that came back."""
    said = rig.last_words() if fault.words else ""
    if not said.startswith(fault.words):
        yield f"ended with {said!r}"
    until(lambda: not alive(rig.control_pid))
    torque = rig.registers("torque_enable")
    if fault.do is FAULTS["port_unplugged"].do:
        rig.pty.replug()
        time.sleep(0.1)
    if rig.registers("torque_enable") != torque or not fault.safe(rig):
        yield "the servos did not stay as they were"


def alive(pid: int) -> bool:
    """Not gone, and no zombie that a stopped parent has yet to bury."""
    with contextlib.suppress(FileNotFoundError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def until(condition: Callable[[], bool]) -> None:
    end_s = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > end_s:
            raise TimeoutError(f"nothing happened within {PATIENCE_S:g} s")
        time.sleep(0.002)


def run(name: str, rounds: int) -> dict[str, Any]:
    fault = FAULTS[name]
    outcomes = [play(fault) for _ in range(rounds)]
    seconds = np.array([outcome.seconds for outcome in outcomes])
    wrong = [outcome.wrong for outcome in outcomes if outcome.wrong]
    return {
        "name": name,
        "what": fault.what,
        "rounds": rounds,
        "median_s": float(np.median(seconds)),
        "max_s": float(seconds.max()),
        "bound_s": fault.bound_s,
        "misses": int((seconds > fault.bound_s).sum()) + len(wrong),
        "wrong": wrong,
    }


def main() -> int:
    parser = benchmark_parser(__doc__, rounds=3, only=FAULTS)
    parser.add_argument("--policy", metavar="PORT", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.policy:
        policy(arguments.policy)
        return 0
    found = []
    for name in arguments.only or FAULTS:
        row = run(name, arguments.rounds)
        found.append(row)
        print(
            f"{name:<15} {row['rounds']:>4} rounds  median {row['median_s']:.3f} s  "
            f"max {row['max_s']:.3f} s  bound {row['bound_s']:.2f} s  misses {row['misses']}  "
            f"{row['what']}" + "".join(f"\n    {wrong}" for wrong in row["wrong"]),
            file=sys.stderr if arguments.json else sys.stdout,
            flush=True,
        )
    if arguments.json:
        print(json.dumps({"faults": found}))
    return int(any(row["misses"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
