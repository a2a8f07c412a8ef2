"""Measures the cost of tracing: on against off, in turn. `floor` is on against on.

python benchmarks/tracing.py [--rounds 100] [--json]

`chunk` is System 1 on the demo's bundle. Its thread does all tracing work of the policy's process
for one chunk: its own spans and wake-up, the spans of camera, System 2 and control process in that
time, and the draining of all spans into histograms. `glue` is the same with engines that do
nothing, so it shows costs that the noise of a chunk hides. `tick` is the control loop on a robot in
memory that plays a chunk, with the spans that its process sends. With tracing off, spans are
dropped and nothing is drained. Exits with 1 if a limit is exceeded.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from interleaved import Times, interleaved, ratio

from runtime.config.robot_yaml import RunConfig
from runtime.control.dry_run import virtual_robot
from runtime.control.loop import Control
from runtime.engines.base import EngineFactory, load, zeros
from runtime.engines.fake import FakeEngine
from runtime.fit import check_fit
from runtime.host.run_delay import meter
from runtime.mailbox import ChunkMsg, FrameMsg, Mailboxes
from runtime.policy.graphs import PolicyGraphs
from v2a.bundle import Bundle, load_bundle
from v2a.clock import Clock, FakeClock, MonotonicClock
from v2a.config import load_yaml
from v2a.spans import STAGE_INDEX, SpanRing, Tracer

DEMO = Path(__file__).parent.parent / "demo"
LIMITS = {"chunk_pct": 2.0, "tick_us": 20.0}

# The demo's rates: between two drains, half a second, 5 chunks, 10 pictures, 50 ticks.
CHUNKS = 5
ELSEWHERE = {"camera": 10 * 3, "system2": 2.5 * 6, "control": 50 * 3}  # spans of other threads
TICKS, TICKS_PER_PACKET = 40, 20  # a round; and between two packets of the control process

Arm = Callable[[], object]


class Nowhere(SpanRing):
    """Tracing switched off."""

    def add(self, stage_index: int, t0_ns: int, t1_ns: int, arg: int = 0) -> None:
        pass


class System1:
    """Half a second of chunks."""

    def __init__(self, bundle: Bundle, engines: EngineFactory, on: bool) -> None:
        self._on = on
        self._clock: Clock = MonotonicClock() if on else FakeClock()
        self._tracer = Tracer()
        self._ring = self._tracer.ring("system1") if on else Nowhere()
        self._graphs = PolicyGraphs(bundle, self._clock, engines)
        self._graphs.set_instruction(next(iter(bundle.manifest.instructions)), SpanRing())
        self._condition = zeros(bundle.graph("condition").outputs)
        self._noise = zeros(bundle.graph("denoise").inputs)["noise"]
        camera, joints = bundle.manifest.cameras[0], bundle.manifest.action_space.joints
        self._image = np.zeros((camera.height, camera.width, 3), np.uint8)
        self._rest = np.zeros(len(joints))
        self._seq = 0

    def __call__(self) -> None:
        for _ in range(CHUNKS):
            if self._on:
                meter().waits()
                meter().woke(self._clock.now_ns(), self._clock.now_ns())
            self._chunk()
            if self._on:
                start_ns = self._clock.now_ns()
                self._ring.add(STAGE_INDEX["publish"], start_ns, self._clock.now_ns(), self._seq)
        if self._on:
            for thread, spans in ELSEWHERE.items():
                ring = self._tracer.ring(thread)
                for _ in range(int(spans)):
                    ring.add(STAGE_INDEX["tick"], 0, 200_000, self._seq)
            self._tracer.drain()

    def _chunk(self) -> None:
        self._seq += 1
        frame = FrameMsg(self._seq, 0, 0, 0, 0, self._image, ())
        rest, ring = self._rest, self._ring
        self._graphs.chunk(frame, rest, rest, self._condition, 0.1, self._noise, ring)


class Loop:
    """The armed control loop, tick after tick."""

    def __init__(self, bundle: Bundle, config: RunConfig, on: bool) -> None:
        self._on = on
        self._clock, boxes = MonotonicClock(), Mailboxes()
        self._ring = SpanRing() if on else Nowhere()
        limits = check_fit(config, bundle.manifest)
        robot = virtual_robot(config.robot, self._clock)
        self._control = Control(robot, limits, config, boxes, self._clock, self._ring)
        self._control.open()
        armed = self._control.request("arm")
        while not armed.is_set():
            self._control.tick(self._clock.now_ns())
        now_ns = self._clock.now_ns()
        at_rest = np.tile(np.clip(0.0, limits.lower_rad, limits.upper_rad), (16, 1))
        boxes.chunk.put(ChunkMsg(1, now_ns, 0, 1, 0, at_rest, 10**12, 0), now_ns)

    def __call__(self) -> None:
        for number in range(TICKS):
            self._control.tick(self._clock.now_ns())
            if self._on and number % TICKS_PER_PACKET == 0:
                self._ring.drain().tobytes()
                meter().times()


def compared(arms: Mapping[str, Arm], rounds: int, per_round: int) -> dict[str, Any]:
    """Each of a round's `per_round` pieces of work, in us and as a share."""
    times = interleaved(arms, rounds)
    return {
        "off_us": float(np.median(times["off"])) / per_round / 1e3,
        "cost_us": difference(times, "on", "off", per_round),
        "floor_us": difference(times, "again", "on", per_round),
        "on_by_off": ratio(times, "on", "off"),
        "floor": ratio(times, "again", "on"),
    }


def difference(times: Times, over: str, under: str, per_round: int) -> dict[str, float]:
    """Median over the rounds in us, with a bootstrap 95 % interval."""
    found: npt.NDArray[np.float64] = (times[over] - times[under]) / per_round / 1e3
    rng = np.random.default_rng(0)
    medians = np.median(rng.choice(found, (2000, len(found))), axis=1)
    low, high = np.quantile(medians, [0.025, 0.975])
    return {"us": float(np.median(found)), "low": float(low), "high": float(high)}


def settings() -> RunConfig:
    """The demo's robot, which may hold for as long as it takes."""
    config = load_yaml(DEMO / "robot.yaml", RunConfig)
    patient = {"hold_max_s": 7200.0, "stall_s": 10.0, "stall_error_rad": 1.6}
    return config.model_copy(update={"safety": config.safety.model_copy(update=patient)})


def measured(rounds: int) -> dict[str, Any]:
    bundle, config = load_bundle(DEMO / "bundle"), settings()
    loaded = {
        spec.name: load(spec, bundle.graph_path(spec.name)) for spec in bundle.manifest.graphs
    }
    makers: dict[str, Callable[[bool], Arm]] = {
        "chunk": lambda on: System1(bundle, lambda spec, path: loaded[spec.name], on),
        "glue": lambda on: System1(bundle, FakeEngine, on),
        "tick": lambda on: Loop(bundle, config, on),
    }
    found = {
        name: compared(
            {"off": make(False), "on": make(True), "again": make(True)},
            rounds,
            TICKS if name == "tick" else CHUNKS,
        )
        for name, make in makers.items()
    }
    costs = {
        "chunk_pct": 100 * found["glue"]["cost_us"]["us"] / found["chunk"]["off_us"],
        "tick_us": found["tick"]["cost_us"]["us"],
    }
    ok = all(costs[name] <= limit for name, limit in LIMITS.items())
    return {**found, "costs": costs, "limits": LIMITS, "ok": ok}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measured(arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
    else:
        print("us             off      cost   95 %              floor    on/off   95 %")
        for name in ("chunk", "glue", "tick"):
            row = found[name]
            cost, times = row["cost_us"], row["on_by_off"]
            print(
                f"{name:<8}{row['off_us']:10.1f}{cost['us']:10.2f}   "
                f"{cost['low']:.2f} to {cost['high']:.2f}{row['floor_us']['us']:9.2f}"
                f"{times['ratio']:9.4f}   {times['low']:.4f} to {times['high']:.4f}"
            )
        costs = found["costs"]
        print(f"{costs['chunk_pct']:.2f} % of a chunk, {costs['tick_us']:.1f} us a tick")
    sys.exit(0 if found["ok"] else 1)


if __name__ == "__main__":
    main()
