"""Measures how late the control loop wakes: as a process, as a thread, and as a bare loop.

python benchmarks/control_jitter.py [--seconds 10] [--hz 500] [--rounds 3] [--json]

Each load is a thread of the policy's process, where a policy's own code runs. `process` is the
control process as `v2a run` starts it. `thread` is the same `Control` in a thread of the loaded
process, with the same scheduling. `floor` is a loop that only sleeps, in a process with the same
scheduling: it shows the delays of the machine itself. Every tick reads and writes two servos in
memory, with torque on. Cases take turns, and each takes `--seconds`. Missed ticks are counted by
cause: `late` if the loop woke too late, `bus` if its own work took too long.
"""

from __future__ import annotations

import argparse
import gc
import json
import multiprocessing
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from runtime.config.robot_yaml import SERIAL_FAULTS_MAX_S, RunConfig
from runtime.control.client import ControlClient
from runtime.control.dry_run import virtual_robot
from runtime.control.loop import Control
from runtime.control.record import ControlRecord
from runtime.host.realtime import FIFO_PRIORITY, claim
from runtime.mailbox import Mailboxes
from runtime.safety.motion_limiter import Limits
from runtime.supervisor import SWITCH_INTERVAL_S
from v2a.clock import MonotonicClock
from v2a.spans import Histogram, SpanRing

BUNDLE = Path(__file__).parent.parent / "demo" / "bundle"
CAUSES = ("late", "bus")
WIDE = np.ones(2)
LIMITS = Limits(("a", "b"), -WIDE, WIDE, WIDE, 250 * WIDE)


def config(hz: float) -> RunConfig:
    joint = {"model": "xl430-w250", "lower_rad": -1, "upper_rad": 1, "velocity_limit_rad_s": 1}
    joints = [joint | {"name": name, "id": i} for i, name in enumerate("ab", start=1)]
    bus = {"protocol": "dynamixel2", "port": "none", "baud": 1_000_000}
    # The highest values: the load delays the policy's signs of life.
    patient = {
        **{"hold_max_s": 7200, "policy_silent_s": 5, "policy_lost_s": 10},
        **{"stall_s": 10, "stall_error_rad": 1.6},
    }
    return RunConfig.model_validate(
        {
            "robot": {"name": "two", "bus": bus, "joints": joints},
            "camera": {"source": "none"},
            "control": {"rate_hz": hz, "serial_faults_max": int(SERIAL_FAULTS_MAX_S * hz)},
            "safety": patient,
            "instruction": "none",
        }
    )


def alone() -> Callable[[], object]:
    return lambda: time.sleep(0.05)


def beside_onnxruntime() -> Callable[[], object]:
    from runtime.engines.base import load
    from v2a.bundle import load_bundle

    bundle = load_bundle(BUNDLE)
    graph = bundle.graph("vdm_motion")
    engine = load(graph, bundle.graph_path("vdm_motion"))
    feeds = {tensor.name: np.zeros(tensor.shape, tensor.dtype) for tensor in graph.inputs}
    return lambda: engine.run(feeds)


def beside_python() -> Callable[[], object]:
    return lambda: sum(n * n for n in range(100_000))


def beside_json_and_gc() -> Callable[[], object]:
    """One long call that keeps the GIL, and a collector with half a million objects to look at."""
    rows = [{"seq": n, "rad": [n * 0.1] * 4} for n in range(100_000)]
    return lambda: (json.dumps(rows[:8000]), gc.collect())


LOADS = {
    "alone": alone,
    "onnxruntime": beside_onnxruntime,
    "python": beside_python,
    "json_gc": beside_json_and_gc,
}


def in_process(hz: float, seconds: float) -> ControlRecord:
    control = ControlClient("virtual", LIMITS, config(hz), Mailboxes(), MonotonicClock(), ring())
    return played(control, seconds, lambda: None)


def in_thread(hz: float, seconds: float) -> ControlRecord:
    settings, clock = config(hz), MonotonicClock()
    robot = virtual_robot(settings.robot, clock)
    control = Control(robot, LIMITS, settings, Mailboxes(), clock, ring())
    return played(control, seconds, first_in_line)


def first_in_line() -> None:
    """This thread, where it is permitted."""
    with suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(FIFO_PRIORITY))


def ring() -> SpanRing:
    return SpanRing(capacity=1024)


def played(
    control: Control | ControlClient, seconds: float, prepare: Callable[[], None]
) -> ControlRecord:
    """Hold, armed, for so long."""
    stop = threading.Event()

    def loop() -> None:
        prepare()
        control.run(stop.is_set)

    control.open()
    thread = threading.Thread(target=loop)
    thread.start()
    control.request("arm").wait(30.0)
    time.sleep(seconds)
    stop.set()
    thread.join()
    return control


def floor(hz: float, seconds: float) -> Histogram:
    """In a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(sleep_on_grid, (hz, seconds))


def sleep_on_grid(hz: float, seconds: float) -> Histogram:
    claim(None)
    clock, late, period_ns = MonotonicClock(), Histogram(), round(1e9 / hz)
    due_ns = clock.now_ns()
    for _ in range(round(seconds * hz)):
        clock.sleep_until_ns(due_ns)
        late_ns = clock.now_ns() - due_ns
        late.observe(late_ns)
        due_ns += (late_ns // period_ns + 1) * period_ns
    return late


class Load:
    """Runs `work` again and again in a thread; its own rate shows that it did."""

    def __init__(self, work: Callable[[], object]) -> None:
        self._work = work
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._work()

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class Case:
    """What all slices of one case found together."""

    def __init__(self, name: str, hz: float) -> None:
        self.name, self.hz = name, hz
        self.late = Histogram()
        self.missed = dict.fromkeys(CAUSES, 0)
        self.realtime: dict[str, str] = {}

    def add(self, found: ControlRecord | Histogram) -> None:
        if isinstance(found, Histogram):
            self.late.merge(found)
            return
        self.late.merge(found.late)
        self.realtime = found.realtime
        for cause in CAUSES:
            self.missed[cause] += found.missed_ticks[cause]

    def row(self) -> dict[str, Any]:
        quantiles = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
        missed, ticks = sum(self.missed.values()), self.late.count
        return {
            "name": self.name,
            "hz": self.hz,
            **{f"wake_{name}_us": self.late.quantile(q) / 1e3 for name, q in quantiles.items()},
            "wake_max_us": self.late.max_ns / 1e3,
            "missed_pct": 100 * missed / max(missed + ticks, 1),
            "missed": self.missed,
            "ticks": ticks,
            "realtime": self.realtime,
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--hz", type=float, default=500.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    arms: dict[str, Callable[[float, float], ControlRecord | Histogram]] = {
        "process": in_process,
        "thread": in_thread,
        "floor": floor,
    }
    loads = {name: make() for name, make in LOADS.items()}
    cases = {(load, arm): Case(f"{arm}, {load}", arguments.hz) for load in loads for arm in arms}
    for number in range(arguments.rounds):
        for (load, arm), case in [*cases.items()][:: -1 if number % 2 else 1]:
            with Load(loads[load]):
                case.add(arms[arm](arguments.hz, arguments.seconds / arguments.rounds))
    rows = [case.row() for case in cases.values()]
    if arguments.json:
        print(json.dumps({"cases": rows}))
        return
    print(f"us late at {arguments.hz:g} Hz      p50     p99   p99.9       max  missed")
    for row in rows:
        wake = "".join(f"{row[f'wake_{q}_us']:8.0f}" for q in ("p50", "p99", "p999"))
        print(f"{row['name']:<20}{wake}{row['wake_max_us']:10.0f}{row['missed_pct']:7.2f} %")


if __name__ == "__main__":
    main()
