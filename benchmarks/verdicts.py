"""Measures how often `v2a compare` is right, on equal policies and on one engine 20 % slower.

python benchmarks/verdicts.py [turns] [--tries 20] [--json]
    Compares a bundle with its copy `--tries` times, engines in turn. Then it makes each engine of
    the copy slower, twice. A try takes 5 s.
python benchmarks/verdicts.py profiles [--tries 20] [--seconds 20] [--camera SOURCE] [--json]
    Makes one profile after the other and compares each with the next and with all. Then it makes
    three profiles with a slower `denoise` and compares each with all the others. A profile takes
    50 s.

Uses the demo's bundle. Run nothing else on the machine, or the profiles say little. Exits with 1 if
more than one in twenty equal pairs is called different, or if a slower engine is not named.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy.typing as npt

from runtime.engines.base import Engine, EngineFactory, Tensors, load
from runtime.policy.graphs import SUPPLIED
from runtime.profile.compare import ComparedRatio, compare_profiles
from runtime.profile.live import measure
from runtime.profile.paired import compare_engines
from runtime.profile.subject import Subject, virtual_config
from runtime.profile_model import Profile
from v2a.bundle import Bundle, GraphSpec, load_bundle
from v2a.clock import MonotonicClock

BUNDLE = Path(__file__).parent.parent / "demo" / "bundle"
FIFTH = 1.2
SLOW_TURNS, SLOW_PROFILES = 2, 3


class Slower(Engine):
    """An engine that takes `FIFTH` times as long, busy all the time."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        start_ns = time.perf_counter_ns()
        outputs = self._engine.run(feeds)
        end_ns = start_ns + FIFTH * (time.perf_counter_ns() - start_ns)
        while time.perf_counter_ns() < end_ns:
            pass
        return outputs

    def close(self) -> None:
        self._engine.close()


def slowed(name: str, under: Path) -> EngineFactory:
    """A factory that makes the engine of graph `name` slower, in the bundle at `under`."""

    def engines(graph: GraphSpec, path: Path) -> Engine:
        engine = load(graph, path)
        return Slower(engine) if graph.name == name and path.is_relative_to(under) else engine

    return engines


class SlowDenoise(Subject):
    def engines(self) -> EngineFactory:
        return slowed("denoise", self.bundle.path)


def turns(tries: int) -> dict[str, Any]:
    bundle, clock = load_bundle(BUNDLE), MonotonicClock()
    with tempfile.TemporaryDirectory() as folder:
        copy = load_bundle(Path(shutil.copytree(BUNDLE, Path(folder) / "copy")))

        def named(slow: str) -> list[str]:
            found = compare_engines(bundle, copy, slowed(slow, copy.path), clock)
            print(f"{slow or 'the same'}: {found.verdict}", file=sys.stderr, flush=True)
            return _different(found.engines)

        same = [named("") for _ in range(tries)]
        slower = [(name, named(name)) for _ in range(SLOW_TURNS) for name in SUPPLIED]
    right = sum(found == [name] for name, found in slower)
    return {
        "same_within_noise": [same.count([]), tries],
        "slower_named_alone": [right, len(slower)],
        "ok": same.count([]) >= 0.95 * tries and right == len(slower),
    }


def profiles(tries: int, seconds: float, camera: str) -> dict[str, Any]:
    bundle = load_bundle(BUNDLE)
    same = list(_measured(bundle, Subject, tries + 1, seconds, camera))
    slower = list(_measured(bundle, SlowDenoise, SLOW_PROFILES, seconds, camera))
    neighbours = [not _all_different(a, b) for a, b in pairwise(same)]
    pairs = [_all_different(a, b) for a, b in combinations(same, 2)]
    slow = [compare_profiles(a, b).stages["denoise"] for a in same for b in slower]
    alone = [profile.engines["denoise"].alone for profile in same]
    alone_ms = [times.p50_ms for times in alone if times is not None]
    in_run_ms = [profile.stages["denoise"].p50_ms for profile in same]
    return {
        "neighbours_within_noise": [sum(neighbours), tries],
        "pairs_within_noise": [pairs.count([]), len(pairs)],
        "called_different": sorted({name for pair in pairs for name in pair}),
        "slower_called_worse": [sum(row.verdict == "worse" for row in slow), len(slow)],
        "slower_interval_factor": sorted(row.ci95[1] / row.ratio for row in slow)[len(slow) // 2],
        "denoise_alone_p50_ms": [min(alone_ms), max(alone_ms)],
        "denoise_in_run_p50_ms": [min(in_run_ms), max(in_run_ms)],
        "ok": sum(neighbours) >= 0.95 * tries,
    }


def _measured(
    bundle: Bundle, kind: type[Subject], count: int, seconds: float, camera: str
) -> Iterator[Profile]:
    for _ in range(count):
        with tempfile.TemporaryDirectory() as folder:
            subject = kind(bundle, virtual_config(bundle.manifest, camera), "virtual")
            yield measure(subject, seconds, Path(folder) / "run", None)


def _all_different(before: Profile, after: Profile) -> list[str]:
    found = compare_profiles(before, after)
    return _different(found.stages | found.ages)


def _different(rows: Mapping[str, ComparedRatio]) -> list[str]:
    return [name for name, row in rows.items() if row.verdict != "within_noise"]


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["turns", "profiles"], nargs="?", default="turns")
    parser.add_argument("--tries", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=20.0, help="of a profile; 5 or more")
    parser.add_argument("--camera", default="synthetic:")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.what == "turns":
        found = turns(options.tries)
    else:
        found = profiles(options.tries, options.seconds, options.camera)
    lines = [f"{name}: {value}" for name, value in found.items()]
    print(json.dumps(found, indent=1) if options.json else "\n".join(lines))
    return 0 if found["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
