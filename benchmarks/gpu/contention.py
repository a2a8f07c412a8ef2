"""Runs System 1 at its rate beside System 2 at full speed for some time, and counts both."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpu.device import Device, Lane, Launch
from gpu.released import Chunk

MS = 1_000_000


class System1:
    """One chunk from page-locked inputs to a page-locked result, by one CUDA graph."""

    def __init__(self, chunk: Chunk, device: Device, lane: Lane) -> None:
        self.lane = lane
        self._launch = lane.capture(chunk.critical)
        self._result = chunk.critical_result
        self._inputs = [
            (tensor, device.host(*tensor.shape)) for tensor in (chunk.noise, chunk.position)
        ]
        self._chunk = device.host(*self._result.shape)

    def __call__(self) -> None:
        for tensor, source in self._inputs:
            self.lane.copy(tensor, source)
        self._launch()
        self.lane.copy(self._chunk, self._result)
        self.lane.wait()


class Gate:
    """Holds System 2's next slice back while System 1 runs, or is due within one slice's time.

    System 1 never waits here. System 2 waits `most_s` at the longest, then goes on.
    """

    def __init__(self, slice_ms: float, most_s: float) -> None:
        self.slice_ns, self.most_s = int(slice_ms * MS), most_s
        self.waits_ms: list[float] = []
        self.overruled = 0
        self._changed = threading.Condition()
        self._running = False
        self._due_ns: int | None = None

    def begin(self) -> None:
        with self._changed:
            self._running = True

    def end(self, due_ns: int | None) -> None:
        """System 1 is done; it is due again at `due_ns`."""
        with self._changed:
            self._running, self._due_ns = False, due_ns
            self._changed.notify_all()

    def _shut(self) -> bool:
        due = self._due_ns is not None and time.perf_counter_ns() + self.slice_ns >= self._due_ns
        return self._running or due

    def wait(self) -> None:
        """Called by System 2 before each slice."""
        start_ns = time.perf_counter_ns()
        with self._changed:
            if not self._shut():
                return
            opened = self._changed.wait_for(lambda: not self._shut(), timeout=self.most_s)
        self.overruled += not opened
        self.waits_ms.append((time.perf_counter_ns() - start_ns) / MS)


class Load:
    """System 2 in a thread: `launches` in a row, each waited for; a pass is all of them.

    `ahead`: the next one is launched before the last one is waited for, so two are in flight.
    """

    def __init__(
        self,
        lane: Lane,
        launches: Sequence[Launch],
        gate: Gate | None = None,
        ahead: bool = False,
    ) -> None:
        self.lane, self.launches, self.gate, self.ahead = lane, launches, gate, ahead
        self.done = 0

    def start(self) -> None:
        self._stop = False
        self.done = 0
        self._start_ns = self._end_ns = time.perf_counter_ns()
        self._thread = threading.Thread(target=self._work)
        self._thread.start()

    def _work(self) -> None:
        before: Callable[[], None] | None = None
        while not self._stop:
            for launch in self.launches:
                if self.gate is not None:
                    self.gate.wait()
                launch()
                mark = self.lane.mark()
                if self.ahead and before is not None:
                    before()
                elif not self.ahead:
                    mark()
                before = mark
                self.done += 1
                self._end_ns = time.perf_counter_ns()
                if self._stop:
                    break
        self.lane.wait()

    def stop(self) -> float:
        """Passes a second."""
        self._stop = True
        self._thread.join()
        seconds = (self._end_ns - self._start_ns) / 1e9
        return self.done / len(self.launches) / seconds if seconds else 0.0


@dataclass
class Arm:
    """A way to run the two side by side. `system1` or `load` is None for the other one alone."""

    name: str
    system1: Callable[[], None] | None
    load: Any = None
    gate: Gate | None = None
    is_system2: bool = True  # else the load is of another kind, and no rate is told
    once: bool = False  # after all rounds, not in them: it heats the card
    latency_ns: list[int] = field(default_factory=list)
    late_ns: list[int] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)
    rounds_p99_ms: list[float] = field(default_factory=list)


def run_segment(arm: Arm, seconds: float, period_s: float) -> None:
    """Run the arm once and add what was seen to it."""
    if arm.load is not None:
        arm.load.start()
    if arm.system1 is None:
        time.sleep(seconds)
    else:
        seen = _paced(arm, arm.system1, seconds, int(period_s * 1e9))
        arm.latency_ns += seen
        arm.rounds_p99_ms.append(float(np.quantile(seen, 0.99)) / MS)
    if arm.load is not None:
        arm.rates.append(arm.load.stop())


def _paced(arm: Arm, system1: Callable[[], None], seconds: float, period_ns: int) -> list[int]:
    """Host time of each chunk, from its start to its result on the host."""
    seen: list[int] = []
    due_ns = time.perf_counter_ns() + period_ns
    end_ns = due_ns + int(seconds * 1e9)
    while due_ns < end_ns or not seen:
        time.sleep(max(0.0, (due_ns - time.perf_counter_ns()) / 1e9))
        if arm.gate is not None:
            arm.gate.begin()
        start_ns = time.perf_counter_ns()
        system1()
        seen.append(time.perf_counter_ns() - start_ns)
        arm.late_ns.append(start_ns - due_ns)
        # The grid's next time; what was missed is not caught up.
        now_ns = time.perf_counter_ns()
        due_ns += period_ns * max(1, -(-(now_ns - due_ns) // period_ns))
        if arm.gate is not None:
            arm.gate.end(due_ns)
    if arm.gate is not None:
        arm.gate.end(None)
    return seen


def summary(arm: Arm, alone: Arm, own_rate: float) -> dict[str, Any]:
    """Quantiles in ms, their ratio to System 1 alone, System 2's rate and its share of its own."""
    found: dict[str, Any] = {"n": len(arm.latency_ns)}
    if arm.latency_ns:
        for name, q in (("p50", 0.5), ("p99", 0.99), ("p999", 0.999), ("max", 1.0)):
            found[f"{name}_ms"] = float(np.quantile(arm.latency_ns, q)) / MS
        found["p99_of_rounds_ms"] = arm.rounds_p99_ms
        found["start_late_p99_ms"] = float(np.quantile(arm.late_ns, 0.99)) / MS
        found |= _ratio(arm.latency_ns, alone.latency_ns)
    if arm.rates and arm.is_system2:
        rate = float(np.mean(arm.rates))
        found |= {"system2_hz": rate, "system2_share": rate / own_rate if own_rate else None}
    if arm.gate is not None:
        waits = arm.gate.waits_ms or [0.0]
        found["gate"] = {
            "waits": len(arm.gate.waits_ms), "p50_ms": float(np.median(waits)),
            "max_ms": max(waits), "overruled": arm.gate.overruled,
        }  # fmt: skip
    return found


def _ratio(times: Sequence[int], base: Sequence[int], draws: int = 1000) -> dict[str, Any]:
    """p99 over p99 alone, with a bootstrap 95 % interval that takes chunks as independent."""
    rng = np.random.default_rng(0)

    def drawn(values: Sequence[int]) -> Any:
        rows = rng.integers(0, len(values), (draws, len(values)))
        return np.quantile(np.asarray(values)[rows], 0.99, axis=1)

    low, high = np.quantile(drawn(times) / drawn(base), [0.025, 0.975])
    middle = np.quantile(times, 0.99) / np.quantile(base, 0.99)
    return {"p99_ratio": float(middle), "p99_ratio_95": [float(low), float(high)]}
