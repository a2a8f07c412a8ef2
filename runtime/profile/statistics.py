"""Quantiles, and the ratio of two series of latencies with a confidence interval.

The latencies of one run are not independent: a slow one is followed by slow ones, because of clock
rates, other programs, and the phase of the other system. A plain bootstrap then gives intervals
that are far too narrow. So the moving block bootstrap (Kuensch 1989) draws whole blocks, as long
as the series is autocorrelated. The spread of the batch means of each run is added (Law, Simulation
Modeling and Analysis, 9.5.3), because it shows changes that are slower than a block. Taking only
the larger of the two is too narrow: on 400 pairs of equal synthetic series with an autocorrelation
of 20 samples it reported a difference for 8 %.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt

from runtime.profile_model import Histogram, Ratio
from v2a.measured import Times

Series = npt.NDArray[np.float64]  # [n] values in order of time

QUANTILES: Final = {"p50_ms": 0.5, "p90_ms": 0.9, "p99_ms": 0.99, "p999_ms": 0.999}
BINS: Final = 48
FEWEST: Final = 16  # with fewer samples there is no verdict
BATCHES: Final = 8
TRIM: Final = 0.1
DRAWS: Final = 500
_FEW_REPEATS: Final = 1.55
_UNCORRELATED: Final = 0.1  # a smaller autocorrelation counts as none


class Interval(NamedTuple):
    """A ratio and its 95 % interval; NaN, 0 and infinity where there are too few samples."""

    ratio: float
    low: float
    high: float

    def rounded(self) -> Ratio:
        """The model for JSON, with four decimals."""
        return Ratio(ratio=_rounded(self.ratio), ci95=(_rounded(self.low), _rounded(self.high)))


def times_of(values_ms: Series) -> Times:
    """Mean, quantiles (nearest rank, so each one occurred) and maximum of durations, float64 [n].

    All are NaN if `values_ms` is empty.
    """
    if not len(values_ms):
        nothing = dict.fromkeys((*QUANTILES, "mean_ms", "max_ms"), math.nan)
        return Times.model_validate({"n": 0, **nothing})
    ranked = np.quantile(values_ms, list(QUANTILES.values()), method="inverted_cdf")
    ends = {"mean_ms": float(values_ms.mean()), "max_ms": float(values_ms.max())}
    quantiles = dict(zip(QUANTILES, ranked.tolist(), strict=True))
    return Times.model_validate({"n": len(values_ms), **ends, **quantiles})


def histogram(values_ms: Series) -> Histogram:
    """Counts of the durations, float64 [n], in `BINS` bins that grow by a constant factor."""
    if not len(values_ms):
        return Histogram(edges_ms=(), counts=())
    low_ms = max(float(values_ms.min()), 1e-4)
    edges_ms = np.geomspace(low_ms, max(float(values_ms.max()), 1.01 * low_ms), BINS + 1)
    counts, _ = np.histogram(np.clip(values_ms, edges_ms[0], edges_ms[-1]), edges_ms)
    return Histogram(edges_ms=tuple(edges_ms.round(6).tolist()), counts=tuple(counts.tolist()))


def typical(values: Series) -> float:
    """The mean of the middle 80 % of `values`, float64 [n].

    A stage has two speeds, alone and beside System 2. The median jumps from one to the other when
    their shares change a little; this mean does not.
    """
    return float(_typical(values))


def ratio(
    over: Series,
    under: Series,
    comparisons: int = 1,
    floor: float = 0.0,
    between_runs: float = 0.0,
) -> Interval:
    """`typical(over) / typical(under)` for the series, float64 [n] and [m], of two runs.

    The interval holds for `comparisons` ratios together (Bonferroni), so chance alone seldom makes
    one of fifteen stages look slower. `floor` widens it on both sides: it is the logarithm of the
    factor by which two measurements of the same thing differ. `between_runs` is the result of the
    function `between_runs`.
    """
    if min(len(over), len(under)) < FEWEST or typical(under) <= 0 or typical(over) <= 0:
        return Interval(math.nan, 0.0, math.inf)
    error = math.hypot(_log_error(over), _log_error(under), between_runs)
    return _interval(typical(over) / typical(under), _wide(error, comparisons, floor))


def paired_ratio(over: Series, under: Series, comparisons: int = 1, floor: float = 0.0) -> Interval:
    """The typical `over / under`, round by round, of two series, float64 [n], measured in turn.

    Machine drift affects both series equally, so it does not widen the interval.
    `comparisons` and `floor` are as in `ratio`.
    """
    logs = _logs(over) - _logs(under)
    drawn = _typical(logs[_block_rows(len(logs), block_length(logs))])
    drift = np.array([np.median(part) for part in np.array_split(logs, BATCHES)])
    error = math.hypot(float(drawn.std()), _of_mean(drift))
    return _interval(math.exp(typical(logs)), _wide(error, comparisons, floor))


def between_runs(*repeats_ms: Series) -> float:
    """Standard error of the logarithm of a ratio of two runs, from the typical values, float64 [n],
    of each run and its repetitions; 0 without repetitions.

    A few repetitions say little about their spread. So the error is multiplied by the ratio of
    Student's t, at 6 degrees of freedom and 0.15 %, to the normal quantile.
    """
    spreads = [float(_logs(ms).std(ddof=1)) for ms in repeats_ms if len(ms) > 1]
    return _FEW_REPEATS * math.hypot(*spreads)


def _wide(error: float, comparisons: int, floor: float) -> float:
    return NormalDist().inv_cdf(1 - 0.025 / comparisons) * error + floor


def _interval(middle: float, wide: float) -> Interval:
    return Interval(middle, middle * math.exp(-wide), middle * math.exp(wide))


def _typical(values: Series) -> Series:
    """`typical` along the last axis: [..., n] -> [...]."""
    count = values.shape[-1]
    cut = int(TRIM * count)
    return np.asarray(np.sort(values)[..., cut : count - cut].mean(axis=-1))


def _log_error(values: Series) -> float:
    """Standard error of the logarithm of `typical(values)`, for values [n]."""
    rows = _block_rows(len(values), block_length(values))
    drawn = _logs(_typical(values[rows]))
    return math.hypot(float(drawn.std()), _of_mean(_logs(_batches(values))))


def _block_rows(count: int, length: int) -> npt.NDArray[np.int64]:
    """Indices of `DRAWS` series made of random blocks of `length`: int64 [DRAWS, count]."""
    rng = np.random.default_rng(0)
    starts = rng.integers(0, count - length + 1, (DRAWS, math.ceil(count / length)))
    return (starts[:, :, None] + np.arange(length)).reshape(DRAWS, -1)[:, :count]


def _batches(values: Series) -> Series:
    return np.array([typical(part) for part in np.array_split(values, BATCHES)])


def _of_mean(values: Series) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values))


def _logs(values: Series) -> Series:
    return np.asarray(np.log(np.maximum(values, 1e-12)))  # a stage may take no time


def block_length(values: Series) -> int:
    """The length of a bootstrap block for the series `values`, float64 [n].

    Twice the first lag without autocorrelation, at least the cube root of n and at most an eighth
    of n. The autocorrelation is that of the ranks, so one outlier cannot hide it.
    """
    count = len(values)
    ranks = np.argsort(np.argsort(values)).astype(np.float64)
    ranks -= ranks.mean()
    power = float(ranks @ ranks)
    longest = max(count // BATCHES, 1)
    lags = range(1, longest)
    uncorrelated = (k for k in lags if float(ranks[:-k] @ ranks[k:]) < _UNCORRELATED * power)
    shortest = int(np.ceil(np.cbrt(count)))
    return min(max(2 * next(uncorrelated, longest), shortest), longest)


def _rounded(value: float) -> float:
    return round(value, 4) if math.isfinite(value) else value
