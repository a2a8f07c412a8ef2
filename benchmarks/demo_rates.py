"""Measures what caching saves on the demo's bundle: each tensor once per change of its inputs.

    python benchmarks/demo_rates.py [--json]

`everything` runs every graph for every chunk, as the released code does for its video encoder.
`by_rate` runs only the graphs whose inputs change with each chunk. `again` is `by_rate` a second
time, which gives the noise floor. All run in turn in one thread of one process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from interleaved import interleaved, ratio

from runtime.engines.base import load, zeros
from v2a.bundle import Bundle, load_bundle

BUNDLE = Path(__file__).parents[1] / "demo" / "bundle"
PER_CHUNK = ("frame_encode", "observe", "denoise")


def measure(bundle: Bundle, rounds: int) -> dict[str, Any]:
    """Medians in ms and ratios with their intervals."""
    engines = {g.name: load(g, bundle.graph_path(g.name)) for g in bundle.manifest.graphs}
    feeds = {graph.name: zeros(graph.inputs) for graph in bundle.manifest.graphs}

    def run(names: tuple[str, ...]) -> None:
        for name in names:
            engines[name].run(feeds[name])

    arms = {
        "by_rate": lambda: run(PER_CHUNK),
        "again": lambda: run(PER_CHUNK),
        "everything": lambda: run(tuple(engines)),
    }
    times = interleaved(arms, rounds)
    return {
        "rounds": rounds,
        "median_ms": {name: float(sorted(ns)[len(ns) // 2]) / 1e6 for name, ns in times.items()},
        "everything_over_by_rate": ratio(times, "everything", "by_rate"),
        "floor": ratio(times, "again", "by_rate"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=300)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    found = measure(load_bundle(BUNDLE), arguments.rounds)
    if arguments.json:
        print(json.dumps(found))
        return
    for name, median_ms in found["median_ms"].items():
        print(f"{name:<11}{median_ms:8.3f} ms a chunk")
    for name in ("everything_over_by_rate", "floor"):
        row = found[name]
        print(f"{name:<24}{row['ratio']:6.3f}  (95 %: {row['low']:.3f} to {row['high']:.3f})")


if __name__ == "__main__":
    main()
