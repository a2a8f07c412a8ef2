"""Measures what System 2 is worth: plays the same episodes in several modes, on a virtual clock.

The runtime's own workers run in lockstep: the same code sends the same bytes to the servos. Only
time is simulated. The delay of each worker is drawn from the delays of a real run of the demo
(`results/delays.json`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from demo import task
from demo.episodes import BUNDLE, CHECKPOINT, config_for
from demo.plant import Plant, Result
from demo.statistics import RESULTS, rate
from demo.streams import STREAMS, Stream, without_streams
from demo.synchronous import synchronous
from demo.task import Level
from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.config.robot_yaml import RunConfig
from runtime.engines.base import EngineFactory, load
from runtime.lockstep import CallbackCamera, Delay, Lockstep
from runtime.workers import build_workers
from v2a.bundle import load_bundle
from v2a.clock import FakeClock
from v2a.spans import Tracer

DELAYS: Final = RESULTS / "delays.json"
BLOCK: Final = 25


@dataclass(frozen=True, slots=True)
class Mode:
    """One row of the study: how it differs from the demo.

    `without` names the streams whose tokens are set to zero. With `every` = n, System 2 runs beside
    System 1, once per n chunks. With `synchronous` = n, every n-th call of System 1 runs System 2
    and waits for it. `noise_scale` scales the sampler's initial noise.
    """

    what: str
    without: tuple[Stream, ...] = ()
    every: int | None = None
    synchronous: int | None = None
    noise_scale: float | None = None
    torch: bool = False


MODES: Final = {
    "async": Mode("as the demo runs: both systems in their own threads"),
    "no_motion": Mode("motion stream zeroed", without=("motion",)),
    "no_condition": Mode("all condition tokens zeroed", without=STREAMS),
    "every_1": Mode("System 2 refreshed every System 1 call", every=1),
    "every_2": Mode("every 2nd", every=2),
    "every_4": Mode("every 4th", every=4),
    "every_8": Mode("every 8th", every=8),
    "every_16": Mode("every 16th", every=16),
    "synchronous": Mode(
        "System 2 inside every 8th call, as released: the robot waits", synchronous=8
    ),
    "with_noise": Mode("chunks drawn from noise, as in training", noise_scale=1.0),
    "pytorch": Mode("as async, PyTorch modules instead of ONNX graphs", torch=True),
}


def available_modes() -> list[str]:
    """Return all modes, without `pytorch` if torch or the demo's checkpoint is missing."""
    has_torch = find_spec("torch") is not None and CHECKPOINT.exists()
    return [name for name, mode in MODES.items() if not mode.torch or has_torch]


class Bench:
    """Plays episodes of one mode in virtual time."""

    def __init__(
        self,
        mode: str,
        bundle: Path = BUNDLE,
        delays: Path = DELAYS,
        engines: EngineFactory | None = None,
    ) -> None:
        chosen = MODES[mode]
        self._clock = FakeClock()
        self._plant = Plant()
        self._start_ns = 0  # the time at which the puck starts to move
        config = _config(chosen)
        self._frame_ns = config.frame_period_ns
        workers = build_workers(
            load_bundle(bundle),
            Robot(config.robot, self._clock, LoopbackPort(self._plant.chain)),
            CallbackCamera(self._plant.picture, self._clock),
            config,
            self._clock,
            Tracer(),
            engines=engines or _engines(chosen),
        )
        measured = load_delays(delays)
        if chosen.synchronous is not None:
            workers, measured = synchronous(workers, measured, chosen.synchronous)
        self.workers = workers
        self.lockstep = Lockstep(workers, self._clock, self._move, measured).start()

    def play(self, seed: int, level: Level) -> Result:
        """Play one episode. The robot is disarmed first, and stays armed after the episode."""
        scenario = task.scenario(seed, level)
        self.lockstep.disarm()
        self._start_ns = 1 << 62
        self._plant.reset(scenario)
        self.lockstep.arm()
        now_ns = self._clock.now_ns()
        start_ns = -(-now_ns // self._frame_ns) * self._frame_ns
        self.lockstep.run((start_ns - 1 - now_ns) / 1e9)
        self.lockstep.reset()
        self._start_ns = start_ns
        self.lockstep.run(scenario.steps * self._frame_ns / 1e9)
        return self._plant.result()

    def close(self) -> None:
        """Turn the torque off and close everything."""
        self.lockstep.stop()

    def _move(self, now_ns: int) -> None:
        self._plant.advance(max(now_ns - self._start_ns, 0) / 1e9)


def _config(mode: Mode) -> RunConfig:
    config = config_for("loopback", Path("unused"))
    system1, system2 = config.system1, config.system2
    if mode.noise_scale is not None:
        system1 = system1.model_copy(update={"noise_scale": mode.noise_scale})
    if mode.every is not None:
        system2 = system2.model_copy(update={"period_s": mode.every * system1.period_s})
    return config.model_copy(update={"system1": system1, "system2": system2})


def _engines(mode: Mode) -> EngineFactory:
    if not mode.torch:
        return without_streams(load, mode.without)
    from demo.torch_engine import TorchEngines  # here: the robot has no torch

    return TorchEngines(CHECKPOINT)


def load_delays(path: Path) -> dict[str, Delay]:
    """Read the measured delays: worker -> function that draws a delay in ns."""
    quantiles = json.loads(path.read_text())["quantiles_ns"]
    return {name: partial(_draw, np.array(values)) for name, values in quantiles.items()}


def _draw(quantiles_ns: npt.NDArray[np.int64], rng: np.random.Generator) -> int:
    return int(
        np.interp(
            rng.random() * (len(quantiles_ns) - 1), np.arange(len(quantiles_ns)), quantiles_ns
        )
    )


@dataclass(frozen=True, slots=True)
class Block:
    """Some episodes of one mode: the work of one process call."""

    mode: str
    level: Level
    seeds: tuple[int, ...]
    bundle: Path

    def play(self) -> list[Result]:
        """Play the episodes in order."""
        bench = Bench(self.mode, self.bundle)
        try:
            return [bench.play(seed, self.level) for seed in self.seeds]
        finally:
            bench.close()


def study(
    level: Level,
    seeds: range,
    modes: Iterable[str],
    progress: Callable[[str, int], None],
    bundle: Path = BUNDLE,
    processes: int = 2,
) -> dict[str, Any]:
    """Play the same episodes in every mode, and return mode -> {success_rate, n, ci95, what}.

    Calls `progress(mode, episodes done)` after each block of episodes.
    """
    blocks = [
        Block(mode, level, tuple(seeds[first : first + BLOCK]), bundle)
        for mode in modes
        for first in range(0, len(seeds), BLOCK)
    ]
    won: dict[str, list[bool]] = {block.mode: [] for block in blocks}
    with ProcessPoolExecutor(processes) as pool:
        for block, results in zip(blocks, pool.map(Block.play, blocks), strict=True):
            won[block.mode] += [result.success for result in results]
            progress(block.mode, len(won[block.mode]))
    return {mode: {**rate(wins), "what": MODES[mode].what} for mode, wins in won.items()}
