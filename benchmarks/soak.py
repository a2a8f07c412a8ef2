"""Runs a robot for a long time under load and faults, and checks what must never happen.

python benchmarks/soak.py [--minutes 30] [--viewers 50] [--seed 0] [--json]

The first part is one long run with faults that a run survives: lost answers, damaged answers, a
storm of connections, a full disk, a viewer that stalls. It watches the memory of each process. The
second part is one short run after another. Each ends by a fault or a stop that ends a run: a press
on the page, a datagram, a signal, a servo that restarts, a cable that comes out, a policy that is
killed. Busy processes keep every core of the machine occupied in both parts.

The exit code is 1 if a goal was out of range, torque was on after a stop, a process grew by more
than 5 MB, or a press took longer than 100 ms.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from hw_drivers.virtual.faults import PlantedFault
from tools.live_robot import Run, Servos, ask_json, until

GROWTH_MAX_MB: Final = 5.0
PRESS_MAX_S: Final = 0.1
WARM_S: Final = 20.0  # caches, the first recording chunk, every viewer's thread
AFTER_STOP_S: Final = 1.0
LONG_SHARE: Final = 0.6
PROCESSES: Final = {
    "control": "runtime.control.process",
    "recorder": "runtime.recording.process",
    "page": "runtime.web.process",
}
# Asks as the page does, from many connections, in a process of its own.
VIEWERS: Final = """
import http.client, sys, threading, time
host, count, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
end = time.monotonic() + seconds
def view():
    while time.monotonic() < end:
        c = http.client.HTTPConnection(host, timeout=3)
        try:
            for k in range(30):
                c.request("GET", "/picture" if k % 10 == 9 else "/live"); c.getresponse().read()
                time.sleep(1.0)
        except Exception:
            time.sleep(0.2)
        finally:
            c.close()
threads = [threading.Thread(target=view, daemon=True) for _ in range(count)]
[t.start() for t in threads]; time.sleep(seconds)
"""


@contextlib.contextmanager
def busy_cores() -> Iterator[None]:
    """One process for each core that never sleeps."""
    busy = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in cores()]
    try:
        yield
    finally:
        for process in busy:
            process.kill()
            process.wait()


def cores() -> set[int]:
    return os.sched_getaffinity(0)


def rss_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    return 0.0


class Soak:
    """What was done, and what was seen."""

    def __init__(self, folder: Path, viewers: int, seed: int) -> None:
        self.folder = folder
        self.viewers = viewers
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.growth_mb: dict[str, float] = {}
        self.press_s: list[float] = []
        self._runs = 0

    @contextlib.contextmanager
    def run(self, **options: Any) -> Iterator[tuple[Servos, Run]]:
        """An armed run on servos of its own. What stays out of range is noted at the end."""
        self._runs += 1
        folder = self.folder / f"run-{self._runs}"
        servos = Servos(self.folder)
        try:
            running = Run(servos, folder, "--arm", **options)
            try:
                until(servos.all_torque)
                yield servos, running
            finally:
                running.close()
        finally:
            servos.close()
            self.wrong += [f"goal out of range: {goal}" for goal in servos.goals_out_of_range[:3]]

    def long_run(self, seconds: float) -> None:
        """One run with faults that it must survive."""
        with self.run() as (servos, running), viewers(running.host, self.viewers, seconds):
            end_s = time.monotonic() + seconds
            time.sleep(WARM_S)
            before = self.memory(running)
            while time.monotonic() < end_s and running.process.poll() is None:
                name = self.random.choice(sorted(SURVIVED))
                SURVIVED[name](servos, running)
                self.done[name] += 1
                time.sleep(self.random.uniform(1.0, 5.0))
            if running.process.poll() is not None:
                self.wrong.append(f"the long run ended: {running.stderr.read_text()[-300:]}")
                return
            after = self.memory(running)
            self.growth_mb = {name: after[name] - before[name] for name in before}
            self.wrong += [
                f"{name} grew by {grown:.1f} MB"
                for name, grown in self.growth_mb.items()
                if grown > GROWTH_MAX_MB
            ]
            self.press(servos, running)
            self.check_over("long run", servos, running)

    def memory(self, running: Run) -> dict[str, float]:
        pids = {name: running.pid(module) for name, module in PROCESSES.items()}
        pids["policy"] = running.process.pid
        return {name: rss_mb(pid) for name, pid in pids.items() if pid is not None}

    def short_run(self) -> None:
        """A run that ends by a stop or a fault."""
        name = self.random.choice([*sorted(ENDED), *["press on the page"] * 5])
        with self.run(engine="fake") as (servos, running):
            time.sleep(self.random.uniform(0.5, 3.0))
            try:
                ENDED[name](self, servos, running)
            except OSError as error:  # nothing listens there any more
                said = running.stderr.read_text()[-300:]
                self.wrong.append(f"{name}: the run had ended before: {error}: {said}")
            self.done[name] += 1
            self.check_over(name, servos, running)

    def press(self, servos: Servos, running: Run) -> None:
        """Press STOP on the page: how long until every servo is limp, and what does it say?"""
        host, start_s = running.host, time.monotonic()
        answer = running.press_page()
        until(lambda: servos.limp_since_s is not None)
        assert servos.limp_since_s is not None
        took_s = servos.limp_since_s - start_s
        self.press_s.append(took_s)
        if took_s > PRESS_MAX_S:
            self.wrong.append(f"a press on {host} took {took_s * 1e3:.0f} ms")
        if not answer["confirmed"] or set(answer["torque"].values()) != {"off"}:
            self.wrong.append(f"torque was off, and the page said {answer}")

    def check_over(self, name: str, servos: Servos, running: Run) -> None:
        """The run ends, and torque stays off."""
        try:
            running.wait()
            until(lambda: not servos.any_torque())
        except (TimeoutError, subprocess.TimeoutExpired):
            self.wrong.append(f"{name}: did not end with torque off")
            return
        end_s = time.monotonic() + AFTER_STOP_S
        while time.monotonic() < end_s:
            if servos.any_torque():
                self.wrong.append(f"{name}: torque came back after the end")
                return
            time.sleep(0.01)

    def result(self) -> dict[str, Any]:
        slowest_ms = max(self.press_s, default=0.0) * 1e3
        return {
            "done": dict(sorted(self.done.items())),
            "presses": len(self.press_s),
            "slowest_press_ms": round(slowest_ms, 1),
            "growth_mb": {name: round(grown, 2) for name, grown in self.growth_mb.items()},
            "wrong": self.wrong,
        }


@contextlib.contextmanager
def viewers(host: str, count: int, seconds: float) -> Iterator[None]:
    """`count` viewers of the page at `host`, for at most `seconds`."""
    arguments = [host, str(count), str(seconds)]
    process = subprocess.Popen([sys.executable, "-c", VIEWERS, *arguments])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def plant(name: str, every: int, seconds: float) -> Callable[[Servos, Run], None]:
    """A fault of the bus that strikes every so many answers for a while."""

    def strike(servos: Servos, _run: Run) -> None:
        servos.pty.fault = PlantedFault(name, every)
        time.sleep(seconds)
        servos.pty.fault = None

    return strike


def storm(_servos: Servos, running: Run) -> None:
    """Connections that ask for nothing, and some that ask for nonsense."""
    host, _, port = running.host.rpartition(":")
    opened = []
    for k in range(200):
        with contextlib.suppress(OSError):
            opened.append(socket.create_connection((host, int(port)), timeout=1.0))
            if k % 3 == 0:
                opened[-1].send(b"GET /live HTTP/1.1\r\nHost: elsewhere\r\n\r\n")
    time.sleep(1.0)
    for connection in opened:
        connection.close()


def stalled_viewer(_servos: Servos, running: Run) -> None:
    """A viewer that asks and never reads."""
    host, _, port = running.host.rpartition(":")
    with socket.create_connection((host, int(port)), timeout=1.0) as connection:
        with contextlib.suppress(OSError):
            for _ in range(100):
                connection.send(b"GET /live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        time.sleep(2.0)


def full_disk(_servos: Servos, running: Run) -> None:
    """No file of the recorder may grow any more: as on a full disk, each write fails."""
    if (pid := running.pid(PROCESSES["recorder"])) is not None:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (4096, resource.RLIM_INFINITY))


def ask_late(_servos: Servos, running: Run) -> None:
    """A look at the page, which must answer meanwhile."""
    ask_json(running.host, "GET", "/live")


SURVIVED: Final[dict[str, Callable[[Servos, Run], None]]] = {
    "answers lost": plant("drop", 7, 2.0),
    "answers damaged": plant("crc", 11, 2.0),
    "noise on the bus": plant("noise", 9, 2.0),
    "storm of connections": storm,
    "viewer that stalls": stalled_viewer,
    "disk full": full_disk,
    "look at the page": ask_late,
}


def _press(soak: Soak, servos: Servos, running: Run) -> None:
    soak.press(servos, running)


def _socket(soak: Soak, _servos: Servos, running: Run) -> None:
    running.press_socket()


def _signal(soak: Soak, _servos: Servos, running: Run) -> None:
    numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
    running.signal_all(soak.random.choice(numbers))


def _reboot(soak: Soak, servos: Servos, _running: Run) -> None:
    with servos.chain.lock:
        servos.chain.servos[soak.random.randint(1, 5)].reboot()


def _overload(soak: Soak, servos: Servos, _running: Run) -> None:
    with servos.chain.lock:
        servos.chain.servos[soak.random.randint(1, 5)].overload()


def _kill_policy(soak: Soak, _servos: Servos, running: Run) -> None:
    running.process.kill()


ENDED: Final[dict[str, Callable[[Soak, Servos, Run], None]]] = {
    "press on the page": _press,
    "datagram": _socket,
    "signal": _signal,
    "servo restarts": _reboot,
    "servo overloaded": _overload,
    "policy killed": _kill_policy,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    seconds = arguments.minutes * 60
    end_s = time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder, busy_cores():
        soak = Soak(Path(folder), arguments.viewers, arguments.seed)
        soak.long_run(seconds * LONG_SHARE)
        while time.monotonic() < end_s:
            soak.short_run()
    found = soak.result()
    print(json.dumps(found, indent=None if arguments.json else 1))
    return int(bool(found["wrong"]))


if __name__ == "__main__":
    sys.exit(main())
