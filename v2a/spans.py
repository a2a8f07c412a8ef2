"""Records how long each stage takes: one ring of spans per thread, and histograms of them.

Each thread adds spans to its own ring without a lock. The reporting thread drains the rings.
A span that is overwritten before it is drained is counted in `dropped`.
"""

from __future__ import annotations

import math
import struct
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import numpy.typing as npt

from v2a.names import MACHINE_STAGES, in_table_order

STAGE_INDEX: Final = {stage: index for index, stage in enumerate(MACHINE_STAGES)}
"""Stage of the machine -> its index. The graphs of the run's bundle follow: `Manifest.stages`."""

GPU: Final = "gpu "
"""Prefix of the ring that holds a thread's GPU work: "gpu system1"."""

_SUB_BUCKETS: Final = 32  # per octave, so a bucket is at most 1/32 of its value wide
_SUB_BITS: Final = 5
_BUCKETS: Final = _SUB_BUCKETS * (63 - _SUB_BITS + 1)  # enough for any int64
_NS_PER_MS: Final = 1e6
COLUMNS: Final = ("n", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
"""The columns of every table of times, in order."""


class SpanRing:
    """The last `capacity` spans of one thread: one writer, one reader, no lock."""

    def __init__(self, capacity: int = 65536) -> None:
        # One extra slot: the writer may be filling it while the reader copies.
        self._slots = capacity + 1
        self._buffer = bytearray(self._slots * 32)
        self._rows = np.frombuffer(self._buffer, np.int64).reshape(self._slots, 4)
        self._pack_into = struct.Struct("=4q").pack_into
        self._written = 0
        self._drained = 0
        self.dropped = 0
        self._gpu: SpanRing | None = None

    @property
    def has_gpu(self) -> bool:
        return self._gpu is not None

    @property
    def gpu(self) -> SpanRing:
        """A second ring for the same thread's GPU work, created on first use."""
        if self._gpu is None:
            self._gpu = SpanRing(self._slots - 1)
        return self._gpu

    def add(self, stage_index: int, t0_ns: int, t1_ns: int, arg: int = 0) -> None:
        """Add a stage that ran from `t0_ns` to `t1_ns`; `arg` is its flow id (docs/tracing.md)."""
        written = self._written
        self._pack_into(self._buffer, written % self._slots * 32, stage_index, t0_ns, t1_ns, arg)
        self._written = written + 1

    def drain(self) -> npt.NDArray[np.int64]:
        """Return the spans since the last drain, int64 [n, 4].

        The columns are stage index, start in ns, end in ns, and arg.
        """
        end = self._written
        rows = self._rows[np.arange(self._drained, end)[-self._slots :] % self._slots]
        # Read again: rows that the writer reached during the copy may be corrupt.
        oldest_intact = self._written - self._slots + 1
        lost = min(max(oldest_intact - self._drained, 0), end - self._drained)
        self.dropped += lost
        kept = end - self._drained - lost
        self._drained = end
        return rows[len(rows) - kept :]


def _bucket_of(value_ns: int) -> int:
    shift = max(value_ns.bit_length() - _SUB_BITS - 1, 0)
    return shift * _SUB_BUCKETS + (value_ns >> shift)


def _middle_of(bucket: int) -> float:
    shift = max(bucket // _SUB_BUCKETS - 1, 0)
    return ((bucket - shift * _SUB_BUCKETS) << shift) + ((1 << shift) - 1) / 2


class Histogram:
    """A mergeable histogram of durations in ns, with fixed memory for the whole int64 range.

    Buckets are log-linear, 32 per octave, as in HdrHistogram. A quantile is off by at most 1/32.
    """

    def __init__(self) -> None:
        self._counts = [0] * _BUCKETS
        self._total_ns = 0
        self._max_ns = 0
        self.count = 0

    def observe(self, value_ns: int) -> None:
        """Count one duration. Raises ValueError if it is negative."""
        if value_ns < 0:
            raise ValueError(f"a duration cannot be negative (got {value_ns} ns)")
        self._counts[_bucket_of(value_ns)] += 1
        self._total_ns += value_ns
        self._max_ns = max(self._max_ns, value_ns)
        self.count += 1

    def merge(self, other: Histogram) -> None:
        """Add the counts of `other`."""
        self._counts = [a + b for a, b in zip(self._counts, other._counts, strict=True)]
        self._total_ns += other._total_ns
        self._max_ns = max(self._max_ns, other._max_ns)
        self.count += other.count

    @property
    def max_ns(self) -> float:
        """The exact longest duration; NaN if the histogram is empty."""
        return float(self._max_ns) if self.count else math.nan

    @property
    def mean_ns(self) -> float:
        """The exact mean duration; NaN if the histogram is empty."""
        return self._total_ns / self.count if self.count else math.nan

    def quantile(self, q: float) -> float:
        """Return the nearest-rank quantile `q` (0 to 1) in ns; NaN if the histogram is empty."""
        rank = max(math.ceil(q * self.count), 1)
        seen = 0
        for bucket, count in enumerate(self._counts):
            seen += count
            if seen >= rank:
                return min(_middle_of(bucket), float(self._max_ns))
        return math.nan

    def summary_ms(self) -> dict[str, float]:
        """Return one row of a report table, with the keys of `COLUMNS` and times in ms."""
        return {
            "n": self.count,
            "mean_ms": self.mean_ns / _NS_PER_MS,
            "p50_ms": self.quantile(0.50) / _NS_PER_MS,
            "p90_ms": self.quantile(0.90) / _NS_PER_MS,
            "p99_ms": self.quantile(0.99) / _NS_PER_MS,
            "p999_ms": self.quantile(0.999) / _NS_PER_MS,
            "max_ms": self.max_ns / _NS_PER_MS,
        }


class Tracer:
    """All span rings of one run and the histograms of its stages."""

    def __init__(self) -> None:
        self._rings: dict[str, SpanRing] = {}
        # by the index of the stage
        self._stages: defaultdict[int, Histogram] = defaultdict(Histogram)
        self._gpu_stages: defaultdict[int, Histogram] = defaultdict(Histogram)

    def ring(self, thread_name: str) -> SpanRing:
        """Return the ring of a thread, created on the first call."""
        return self._rings.setdefault(thread_name, SpanRing())

    @property
    def dropped(self) -> int:
        """Number of spans that were overwritten before they were drained."""
        return sum(ring.dropped for ring in self._all().values())

    def drain(self) -> dict[str, npt.NDArray[np.int64]]:
        """Add all new spans to the stage histograms and return them.

        Returns thread name -> int64 [n, 4], as `SpanRing.drain`.
        """
        new = {name: ring.drain() for name, ring in self._all().items()}
        for name, rows in new.items():
            stages = self._gpu_stages if name.startswith(GPU) else self._stages
            for stage_index, t0_ns, t1_ns, _ in rows.tolist():
                stages[stage_index].observe(t1_ns - t0_ns)
        return new

    def stage_table(self, stages: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return stage -> `Histogram.summary_ms` of all drained spans, in the order of tables.

        `stages` are the names of the run's stages by index: `Manifest.stages`.
        """
        return _table(self._stages, stages)

    def gpu_table(self, stages: Sequence[str]) -> dict[str, dict[str, float]]:
        """Return the same table for GPU time, measured by GPU events without copies."""
        return _table(self._gpu_stages, stages)

    def _all(self) -> dict[str, SpanRing]:
        rings = dict(self._rings)
        gpus = {GPU + name: ring.gpu for name, ring in rings.items() if ring.has_gpu}
        return rings | gpus


def _table(found: Mapping[int, Histogram], stages: Sequence[str]) -> dict[str, dict[str, float]]:
    by_name = {stages[index]: histogram for index, histogram in found.items()}
    return {s: by_name[s].summary_ms() for s in in_table_order(stages) if s in by_name}
