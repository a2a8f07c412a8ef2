"""Stops a robot by every source in every state, and measures the time until torque is off.

python benchmarks/stops.py [--rounds 20] [--source NAME] [--state NAME] [--json]

Each round is a `v2a run` on five virtual servos behind a serial port. It brings the run into a
state, stops it, and watches the servos' own registers and what the live page says. A round is wrong
if torque stays on, comes back, or is called off by anybody while a servo still has it.
"""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np

from tools.live_robot import Run, Servos, ask_json, benchmark_parser, until

# Far from where the arm starts, so the way there takes seconds.
SAFE_POSE: Final = ", safe_pose_rad: [1.2, 1.2, -2.2, 1.5, 0.9]"
AFTER_S: Final = 0.3
LIMP_S: Final = 5.0
STORM: Final = 40  # connections at a time


@dataclass(frozen=True)
class State:
    """How a run gets into a state. `reach` returns when it is there."""

    reach: Callable[[Servos, Run], None]
    safety: str = ""
    options: tuple[str, ...] = ()
    latency_timer_s: float = 0.0


def _armed(servos: Servos, running: Run) -> None:
    until(servos.all_torque)
    until(lambda: state_of(running) == "armed")


def _hold(servos: Servos, running: Run) -> None:
    _armed(servos, running)
    running.process.send_signal(signal.SIGSTOP)
    until(lambda: state_of(running) == "hold")


def _safe_pose(_servos: Servos, running: Run) -> None:
    until(lambda: state_of(running) == "safe pose")


def _policy_dead(servos: Servos, running: Run) -> None:
    _armed(servos, running)
    running.process.kill()
    _safe_pose(servos, running)


def _recorder_dead(servos: Servos, running: Run) -> None:
    _armed(servos, running)
    running.kill_child("runtime.recording.process")


def _bus_dead(servos: Servos, running: Run) -> None:
    _armed(servos, running)
    servos.pty.hang_up()


def state_of(running: Run) -> str | None:
    """The safety state that the control process itself reports."""
    state: str | None = ask_json(running.host, "GET", "/live")["outcome"]["state"]
    return state


STATES: Final = {
    # An FTDI adapter in its factory setting, so that arming takes long enough to be hit.
    "arming": State(lambda servos, _: until(servos.any_torque), latency_timer_s=0.016),
    "armed": State(_armed),
    "hold": State(_hold, ", policy_lost_s: 5"),
    "safe pose": State(_safe_pose, SAFE_POSE, ("--seconds", "0.5")),
    "policy dead": State(_policy_dead, SAFE_POSE),
    "recorder dead": State(_recorder_dead),
    "viewers storming": State(_armed),
    "bus dead": State(_bus_dead),
}


def _signal(number: int) -> Callable[[Run], object]:
    return lambda running: running.signal_all(number)


SOURCES: Final[dict[str, Callable[[Run], object]]] = {
    "socket": Run.press_socket,
    "page": Run.press_page,
    "gpio": Run.press_gpio,
    "key (SIGINT)": _signal(signal.SIGINT),
    "SIGQUIT": _signal(signal.SIGQUIT),
    "SIGTERM": _signal(signal.SIGTERM),
    "SIGHUP": _signal(signal.SIGHUP),
    "SIGUSR1": _signal(signal.SIGUSR1),
}


@dataclass
class Witness:
    """Asks the page again and again, and compares it with the servos."""

    servos: Servos
    host: str
    wrong: list[str] = field(default_factory=list)
    confirmed: bool = False
    _over: threading.Event = field(default_factory=threading.Event)

    def look(self) -> None:
        while not self._over.is_set():
            with contextlib.suppress(OSError, ValueError):  # the page has ended
                self.hear(ask_json(self.host, "GET", "/live", timeout_s=1.0)["outcome"])
            self._over.wait(0.02)

    def hear(self, outcome: dict[str, Any]) -> None:
        """Take what the page says. Torque that it calls off must be off."""
        self.confirmed |= outcome["confirmed"]
        if outcome["confirmed"] and self.servos.any_torque():
            self.wrong.append(f"called off, and a servo has torque: {outcome}")

    @contextlib.contextmanager
    def looking(self) -> Iterator[None]:
        thread = threading.Thread(target=self.look, daemon=True)
        thread.start()
        yield
        self._over.set()
        thread.join()


@contextlib.contextmanager
def storming(host: str, really: bool) -> Iterator[None]:
    """Connections that ask for nothing, again and again."""
    over = threading.Event()

    def storm() -> None:
        name, _, port = host.rpartition(":")
        while really and not over.is_set():
            opened = []
            for _ in range(STORM):
                with contextlib.suppress(OSError):
                    opened.append(socket.create_connection((name, int(port)), timeout=0.2))
            for connection in opened:
                connection.close()

    thread = threading.Thread(target=storm, daemon=True)
    thread.start()
    yield
    over.set()
    thread.join()


def play(source: str, state: str) -> tuple[float, list[str]]:
    """One round: seconds until every servo is limp (NaN with a dead bus), and what was wrong."""
    how = STATES[state]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        servos = Servos(folder, how.latency_timer_s)
        running = Run(
            servos, folder / "run", "--arm", *how.options,
            safety=how.safety, engine="fake", with_gpio=source == "gpio",
        )  # fmt: skip
        try:
            host = running.host
            with storming(host, state == "viewers storming"):
                how.reach(servos, running)
                return stop(source, state, servos, running)
        finally:
            running.close()
            servos.close()


def stop(source: str, state: str, servos: Servos, running: Run) -> tuple[float, list[str]]:
    """Stop the run by `source`, and judge what follows."""
    witness = Witness(servos, running.host)
    with witness.looking():
        start_s = time.monotonic()
        with contextlib.suppress(OSError):  # in a dead run nothing listens any more
            answer = SOURCES[source](running)
            if isinstance(answer, dict):
                witness.hear(answer)
        if state == "bus dead":
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(LIMP_S)
            wrong = ["confirmed, with a dead bus"] if witness.confirmed else []
            return float("nan"), witness.wrong + wrong
        try:
            until(lambda: servos.limp_since_s is not None, LIMP_S)
        except TimeoutError:
            return float("inf"), [*witness.wrong, "torque stayed on"]
        assert servos.limp_since_s is not None
        took_s = servos.limp_since_s - start_s
        with contextlib.suppress(TimeoutError):
            until(lambda: witness.confirmed, LIMP_S)
        time.sleep(AFTER_S)
    wrong = [*witness.wrong, *(f"goal out of range: {goal}" for goal in servos.goals_out_of_range)]
    if servos.any_torque():
        wrong.append("torque came back")
    if not witness.confirmed:
        wrong.append("torque was off, and the page never confirmed it")
    return took_s, wrong


def cell(source: str, state: str, rounds: int) -> dict[str, Any]:
    """Play a source in a state so many times."""
    played = [play(source, state) for _ in range(rounds)]
    took_ms = np.array([took_s for took_s, _ in played]) * 1e3
    measured = took_ms[np.isfinite(took_ms)]
    return {
        "source": source,
        "state": state,
        "rounds": rounds,
        "median_ms": round(float(np.median(measured)), 1) if measured.size else None,
        "max_ms": round(float(measured.max()), 1) if measured.size else None,
        "wrong": sorted({what for _, wrong in played for what in wrong}),
    }


def main() -> int:
    arguments = benchmark_parser(__doc__, rounds=3, source=SOURCES, state=STATES).parse_args()
    found = []
    for state in arguments.state or STATES:
        for source in arguments.source or SOURCES:
            row = cell(source, state, arguments.rounds)
            found.append(row)
            print(
                f"{state:<17} {source:<13} {row['rounds']:>3} rounds  "
                f"median {row['median_ms'] or '-':>6} ms  max {row['max_ms'] or '-':>6} ms"
                + "".join(f"\n    WRONG: {what}" for what in row["wrong"]),
                file=sys.stderr if arguments.json else sys.stdout,
                flush=True,
            )
    if arguments.json:
        print(json.dumps({"cells": found}))
    return int(any(row["wrong"] for row in found))


if __name__ == "__main__":
    sys.exit(main())
