"""Part d: runs System 1 beside System 2 on one GPU, in all ways that may keep System 1 on time."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from gpu.contention import Arm, Gate, Load, System1, run_segment, summary
from gpu.green import Partition, sms_used, split_sms
from gpu.machine import Context, sample
from gpu.other_process import OtherProcess
from gpu.released import Chunk, config_of, random_policy
from gpu.system2 import System2, sliced

URGENT = -3  # of PyTorch's 0 (default) to -3
SLICES = {"sliced_5ms": 5.0, "sliced_2ms": 2.0}  # the most that neighbouring steps take together
AHEAD = "sliced_2ms"  # also with two slices in flight
LEAST_PERIOD_S = 0.040  # a chunk for each action of the release's 25 Hz
SHARE = 5  # System 1's period is so many times its own time at least


@dataclass(frozen=True)
class Options:
    """What System 2 is, and which arms there are."""

    with_vae: bool = False
    fused: bool = False  # blocks of both systems through torch.compile
    main: bool = True  # all arms but green contexts
    green_sms: tuple[int, ...] = ()  # SMs of System 1


class Arms:
    """Builds every arm; one that can't be built leaves its reason in `failed`."""

    def __init__(self, context: Context, options: Options, stack: ExitStack) -> None:
        self.device, self.rehearse, self.options = context.device, context.rehearse, options
        self.partitions: list[Partition] = []
        self.made: dict[str, Arm] = {}
        self.failed: dict[str, str] = {}
        self.facts: dict[str, Any] = {}
        models = {"with_vae": options.with_vae, "fused": options.fused}
        if options.main:
            other = OtherProcess(self.device, self.rehearse, **models)  # starts meanwhile
            stack.callback(other.close)
        self.policy = random_policy(config_of(self.rehearse), self.device)
        self.chunk = Chunk(self.policy, self.device, options.fused)
        self.system2 = System2(self.policy, self.device, **models)
        lane = self.device.lane()
        self.system1 = System1(self.chunk, self.device, lane)
        self.add("alone", self.system1)
        self._whole()
        if options.main:
            self.attempt("priority", self._priority)
            for name, budget_ms in SLICES.items():
                self.attempt(name, partial(self._sliced, name, budget_ms))
            self.attempt("processes", lambda: self._processes(other))
            self.attempt("control", self._control)
        for wanted in options.green_sms:
            self.attempt(f"green_{wanted}", partial(self._green, wanted))

    def add(self, name: str, system1: Any, load: Any = None, **more: Any) -> None:
        self.made[name] = Arm(name, system1, load, **more)

    def attempt(self, name: str, build: Callable[[], None]) -> None:
        try:
            build()
        except (RuntimeError, ImportError, AttributeError, TypeError, ValueError) as fault:
            self.failed[name] = f"{type(fault).__name__}: {fault}"

    def _whole(self) -> None:
        """Both on streams of the default priority; System 2 is one graph."""
        beside = self.device.lane()
        self.load = Load(beside, [beside.capture(self.system2.whole)])
        idle = Load(self.device.lane(), [lambda: time.sleep(0.001)])
        self.add("null", self.system1, idle, is_system2=False)
        self.add("system2_alone", None, self.load)
        self.add("plain", self.system1, self.load)

    def _priority(self) -> None:
        self.urgent = System1(self.chunk, self.device, self.device.lane(URGENT))
        self.add("priority", self.urgent, self.load)

    def _sliced(self, name: str, budget_ms: float) -> None:
        """One slice in flight; a gate on the host gives way to System 1, which is urgent too."""
        lane = self.device.lane()
        cut = sliced(self.system2, lane, budget_ms)
        for launch in cut.launches:
            launch()
        lane.wait()
        plain = self.system2.plain()
        self.facts[name] = {
            "slices": len(cut.launches), "budget_ms": budget_ms, "longest_ms": cut.longest_ms,
            "sum_ms": cut.sum_ms, "largest": float(plain.abs().max()),
            "max_abs_error": float((self.system2.values["video_kv"] - plain).abs().max()),
        }  # fmt: skip
        gate = Gate(1.2 * cut.longest_ms + 0.1, most_s=1.0)
        self.add(name, self.urgent, Load(lane, cut.launches, gate), gate=gate)
        if name == AHEAD:
            gate = Gate(2.4 * cut.longest_ms + 0.1, most_s=1.0)
            ahead = Load(lane, cut.launches, gate, ahead=True)
            self.add(f"{name}_ahead", self.urgent, ahead, gate=gate)
            self.add(f"{name}_no_gate", self.urgent, Load(lane, cut.launches))
        self.add(f"{name}_system2_alone", None, Load(lane, cut.launches))

    def _green(self, wanted: int) -> None:
        split = split_sms(self.device, wanted)
        name = f"green_{wanted}"
        self.partitions.append(split)  # its contexts live as long as its streams are used
        facts: dict[str, Any] = {"sms": split.sms}
        self.facts[name] = facts
        system1 = System1(self.chunk, self.device, split.first)
        load = Load(split.rest, [split.rest.capture(self.system2.whole)])
        self.add(name, system1, load)
        self.add(f"{name}_alone", system1)
        self.add(f"{name}_system2_alone", None, load)
        if self.device.is_gpu:
            facts["sms_seen"] = {
                f"{which}{'_graph' if captured else ''}": len(sms_used(lane, captured))
                for which, lane in (("first", split.first), ("rest", split.rest))
                for captured in (False, True)
            }

    def _processes(self, other: OtherProcess) -> None:
        other.ready(90)
        self.add("processes", self.system1, other)

    def _control(self) -> None:
        """Positive control: one kernel of about 20 ms on all SMs must be seen."""
        side, inner = (16384, 26624) if self.device.is_gpu else (512, 512)
        left, right = self.device.random(side, inner), self.device.random(inner, side)
        lane = self.device.lane()
        launch = lane.capture(lambda: left @ right)
        start_ns = time.perf_counter_ns()
        launch()
        lane.wait()
        self.facts["control_kernel_ms"] = (time.perf_counter_ns() - start_ns) / 1e6
        self.add("control", self.system1, Load(lane, [launch]), is_system2=False, once=True)
        if "priority" in self.made:
            self.add(
                "control_priority", self.urgent, Load(lane, [launch]), is_system2=False, once=True
            )


def contention(context: Context, **options: Any) -> dict[str, Any]:
    """All arms in turn, round after round; what is there at the time limit is reported."""
    with ExitStack() as stack:
        arms = Arms(context, Options(**options), stack)
        alone_ms = _alone_ms(arms.system1)
        period_s = max(LEAST_PERIOD_S, SHARE * alone_ms / 1e3)
        seconds = context.segment_s
        context.say(f"alone {alone_ms:.2f} ms, period {1e3 * period_s:.1f} ms, {list(arms.made)}")
        cards, done = [sample()], 0
        for number in range(context.rounds):
            order = [arm for arm in arms.made.values() if not arm.once]
            wanted_s = [_seconds(arm, seconds) for arm in order]
            if number and context.left_s() < 1.15 * sum(wanted_s) + 2 * seconds:
                break
            for arm in order if number % 2 else order[::-1]:
                run_segment(arm, _seconds(arm, seconds), period_s)
            cards.append(sample())
            done += 1
            context.keep(_report(arms, period_s, done, cards))
        for arm in arms.made.values():
            if arm.once:
                run_segment(arm, _seconds(arm, seconds), period_s)
                cards.append(sample())
        return _report(arms, period_s, done, cards)


def _seconds(arm: Arm, seconds: float) -> float:
    """Of one segment: shorter where only one of both runs, or for a control."""
    short = arm.system1 is None or arm.name.endswith("_alone") or arm.once
    return seconds / 3 if short else seconds


def _alone_ms(system1: Callable[[], None]) -> float:
    taken = []
    for _ in range(10):
        start_ns = time.perf_counter_ns()
        system1()
        taken.append(time.perf_counter_ns() - start_ns)
    return float(np.median(taken)) / 1e6


def _duty(alone: Arm, period_s: float) -> float:
    """The share of the time in which System 1 computes, when alone."""
    return float(np.median(alone.latency_ns)) / 1e9 / period_s


def _report(
    arms: Arms, period_s: float, rounds: int, cards: list[dict[str, Any]]
) -> dict[str, Any]:
    alone, own = arms.made["alone"], arms.made["system2_alone"]
    own_rate = float(np.mean(own.rates))
    return {
        "period_ms": 1e3 * period_s, "system1_duty": _duty(alone, period_s), "rounds": rounds,
        "options": asdict(arms.options),
        "system1": "observe of the newest frame and denoise, one CUDA graph",
        "arms": {name: summary(arm, alone, own_rate) for name, arm in arms.made.items()},
        "failed": arms.failed, "facts": arms.facts, "cards": cards,
        "peak_gib": arms.device.peak_gib(),
    }  # fmt: skip
