"""Measures the cost of one span: `SpanRing.add` against two bare clock reads, in turn.

python benchmarks/spans.py [--json]
"""

from __future__ import annotations

import argparse
import json
from time import monotonic_ns

import numpy as np
from interleaved import interleaved, ratio

from v2a.spans import STAGE_INDEX, SpanRing

SPANS = 10_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    ring, stage = SpanRing(), STAGE_INDEX["tick"]

    def spans() -> None:
        for _ in range(SPANS):
            ring.add(stage, monotonic_ns(), monotonic_ns())

    def clocks() -> None:
        for _ in range(SPANS):
            monotonic_ns(), monotonic_ns()

    times = interleaved({"spans": spans, "again": spans, "clocks": clocks}, arguments.rounds)
    cost_ns = float(np.median(times["spans"] - times["clocks"])) / SPANS
    found = {"ns_per_span": cost_ns, "floor": ratio(times, "again", "spans")}
    print(json.dumps(found) if arguments.json else f"{cost_ns:.0f} ns a span beside its clocks")


if __name__ == "__main__":
    main()
