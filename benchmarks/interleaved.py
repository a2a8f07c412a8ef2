"""Compares speeds as ratios: all arms take turns, so machine drift affects each arm equally."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

Times = dict[str, npt.NDArray[np.int64]]


def interleaved(arms: Mapping[str, Callable[[], object]], rounds: int, warm_up: int = 5) -> Times:
    """Nanoseconds of each arm in each round, [rounds]. Odd rounds run backwards."""
    order = list(arms)
    taken: dict[str, list[int]] = {name: [] for name in order}
    for number in range(-warm_up, rounds):
        for name in order if number % 2 else reversed(order):
            start_ns = time.perf_counter_ns()
            arms[name]()
            if number >= 0:
                taken[name].append(time.perf_counter_ns() - start_ns)
    return {name: np.array(values) for name, values in taken.items()}


def ratio(times: Times, over: str, under: str, draws: int = 2000) -> dict[str, float]:
    """Median of `over` by median of `under`, with a bootstrap 95 % interval."""
    rng = np.random.default_rng(0)
    rows = rng.integers(0, len(times[over]), (draws, len(times[over])))
    found = np.median(times[over][rows], axis=1) / np.median(times[under][rows], axis=1)
    low, high = np.quantile(found, [0.025, 0.975])
    middle = np.median(times[over]) / np.median(times[under])
    return {"ratio": float(middle), "low": float(low), "high": float(high)}
