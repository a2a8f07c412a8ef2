"""Quantiles, and the ratio of two series of latencies with an interval that may be believed.

Latencies of one run are not independent: a slow one is followed by slow ones (clocks, neighbours,
the other system's phase). A plain bootstrap then gives intervals that are far too narrow. Here
whole blocks are drawn, as long as the series remembers itself (moving block bootstrap, Kuensch
1989), and the drift between the parts of each run is added: batch means (Law, Simulation Modeling
and Analysis, 9.5.3), which see what is slower than a block. The larger of the two alone is too
narrow: of 400 pairs of made-up series that remember for 20 samples it called 8 % different.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from v2a.spans import COLUMNS

Series = npt.NDArray[np.float64]

QUANTILES: Final = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}
BINS: Final = 48
FEWEST: Final = 16  # samples, below which nothing can be said
BATCHES: Final = 8
TRIM: Final = 0.1
DRAWS: Final = 500
_FEW_REPEATS: Final = 1.55
_FORGOTTEN: Final = 0.1  # an autocorrelation below this is none


class Interval(NamedTuple):
    """A ratio and its 95 % interval; NaN and 0 to infinity where there is too little to say."""

    ratio: float
    low: float
    high: float

    def as_json(self) -> dict[str, Any]:
        return {"ratio": _rounded(self.ratio), "ci95": [_rounded(self.low), _rounded(self.high)]}


def quantiles_ms(values_ms: Series) -> dict[str, float]:
    """A row of a table, by `COLUMNS`; exact, nearest rank. NaN where there is nothing."""
    if not len(values_ms):
        return {"n": 0} | dict.fromkeys(COLUMNS[1:], math.nan)
    ranked = np.quantile(values_ms, list(QUANTILES.values()), method="inverted_cdf")
    found = dict(zip(QUANTILES, map(float, ranked), strict=True))
    ends = {"mean_ms": float(values_ms.mean()), "max_ms": float(values_ms.max())}
    return {name: len(values_ms) if name == "n" else (found | ends)[name] for name in COLUMNS}


def histogram(values_ms: Series) -> dict[str, list[float]]:
    """Counts between edges that grow by a factor, as latencies do: `len(edges_ms)` is one more."""
    if not len(values_ms):
        return {"edges_ms": [], "counts": []}
    low_ms = max(float(values_ms.min()), 1e-4)
    edges_ms = np.geomspace(low_ms, max(float(values_ms.max()), 1.01 * low_ms), BINS + 1)
    counts, _ = np.histogram(np.clip(values_ms, edges_ms[0], edges_ms[-1]), edges_ms)
    return {"edges_ms": edges_ms.round(6).tolist(), "counts": counts.tolist()}


def typical(values: Series) -> float:
    """The mean of the middle 80 %. Where a stage has two speeds, alone and beside System 2, the
    median jumps from one to the other when their shares change a little; this does not."""
    return float(_typical(values))


def ratio(
    over: Series,
    under: Series,
    comparisons: int = 1,
    floor: float = 0.0,
    between_runs: float = 0.0,
) -> Interval:
    """`typical(over)` by `typical(under)`, of two runs.

    The interval holds for `comparisons` of them together (Bonferroni), so that of fifteen stages
    none is called slower by luck. `floor` widens it on both sides: the logarithm of a factor that
    the same thing, measured twice, is known to differ by. `between_runs`: see `between_runs`.
    """
    if min(len(over), len(under)) < FEWEST or typical(under) <= 0 or typical(over) <= 0:
        return Interval(math.nan, 0.0, math.inf)
    error = math.hypot(_log_error(over), _log_error(under), between_runs)
    return _interval(typical(over) / typical(under), _wide(error, comparisons, floor))


def paired_ratio(over: Series, under: Series, comparisons: int = 1, floor: float = 0.0) -> Interval:
    """What `over` typically is of `under`, round by round, of two series that were measured in
    turn, [n] each: what moves both moves neither end of the interval."""
    logs = _logs(over) - _logs(under)
    drawn = _typical(logs[_block_rows(len(logs), block_length(logs))])
    drift = np.array([np.median(part) for part in np.array_split(logs, BATCHES)])
    error = math.hypot(float(drawn.std()), _of_mean(drift))
    return _interval(math.exp(typical(logs)), _wide(error, comparisons, floor))


def between_runs(*repeats_ms: Series) -> float:
    """Standard error of the logarithm of a ratio of two runs, from what each was when it was
    repeated, [n] typical values each (0 where none was). Few repeats tell little of their spread:
    for the normal quantile it is made wider by what Student's t is at 6 degrees and 0.15 %."""
    spreads = [float(_logs(ms).std(ddof=1)) for ms in repeats_ms if len(ms) > 1]
    return _FEW_REPEATS * math.hypot(*spreads)


def _wide(error: float, comparisons: int, floor: float) -> float:
    return NormalDist().inv_cdf(1 - 0.025 / comparisons) * error + floor


def _interval(middle: float, wide: float) -> Interval:
    return Interval(middle, middle * math.exp(-wide), middle * math.exp(wide))


def _typical(values: Series) -> Series:
    """Along the last axis."""
    count = values.shape[-1]
    cut = int(TRIM * count)
    return np.asarray(np.sort(values)[..., cut : count - cut].mean(axis=-1))


def _log_error(values: Series) -> float:
    """Standard error of the logarithm of `typical(values)`."""
    rows = _block_rows(len(values), block_length(values))
    drawn = _logs(_typical(values[rows]))
    return math.hypot(float(drawn.std()), _of_mean(_logs(_batches(values))))


def _block_rows(count: int, length: int) -> npt.NDArray[np.int64]:
    """Indices of `DRAWS` series made of blocks, [DRAWS, count]."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, count - length + 1, (DRAWS, math.ceil(count / length)))
    return (starts[:, :, None] + np.arange(length)).reshape(DRAWS, -1)[:, :count]


def _batches(values: Series) -> Series:
    return np.array([typical(part) for part in np.array_split(values, BATCHES)])


def _of_mean(values: Series) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _logs(values: Series) -> Series:
    return np.asarray(np.log(np.maximum(values, 1e-12)))  # of a stage that took no time at all


def block_length(values: Series) -> int:
    """Twice the lag at which the series has forgotten itself, at least the cube root of its length
    and at most an eighth of it. By ranks: one outlier must not hide that the rest remember."""
    count = len(values)
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    longest = max(count // BATCHES, 1)
    lags = range(1, longest)
    forgotten = (k for k in lags if float(ranks[:-k] @ ranks[k:]) < _FORGOTTEN * power)
    shortest = int(np.ceil(np.cbrt(count)))
    return min(max(2 * next(forgotten, longest), shortest), longest)


def _rounded(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else value
