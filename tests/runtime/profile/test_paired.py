"""Two bundles in turn: a machine that is twice as slow at times hides no slower engine, and makes
none."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from runtime.engines.base import Tensors
from runtime.profile.paired import EngineComparison, compare_engines, engine_comparison_as_text
from tests.runtime.profile.conftest import USUAL_MS, Engine
from v2a.bundle import Bundle, GraphSpec, load_bundle
from v2a.clock import FakeClock


class Moody(Engine):
    """On a machine that within seconds gets twice as slow, and quicker again: what remembers is
    the machine, not the engine."""

    memory = 0.0

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> Tensors:
        before_ns = self._clock.now_ns()
        outputs = super().run(feeds)
        took_ns = self._clock.now_ns() - before_ns
        mood = 0.5 + 0.5 * np.sin(before_ns / 3e9)
        self._clock.advance_ns(round(mood * took_ns))
        return outputs


@pytest.fixture
def other(bundle: Bundle, tmp_path: Path) -> Bundle:
    return load_bundle(Path(shutil.copytree(bundle.path, tmp_path / "other")))


def compared(
    before: Bundle, after: Bundle, seed: int = 0, slow: str = "", factor: float = 1.2
) -> EngineComparison:
    clock, loaded = FakeClock(), iter(range(1000 * seed, 1000 * (seed + 1)))

    def engines(graph: GraphSpec, path: Path) -> Engine:
        changed = graph.name == slow and path.is_relative_to(after.path)
        return Moody(graph, clock, next(loaded), factor if changed else 1.0, None)

    return compare_engines(before, after, engines, clock)


def test_the_same_bundle_twice_is_within_noise_in_19_of_20_tries(
    bundle: Bundle, other: Bundle
) -> None:
    found = [compared(bundle, other, seed).verdict for seed in range(20)]
    assert found.count("within noise") >= 19


@pytest.mark.parametrize("slow", USUAL_MS)
def test_an_engine_that_takes_a_fifth_more_is_the_one_that_is_named(
    bundle: Bundle, other: Bundle, slow: str
) -> None:
    found = compared(bundle, other, slow=slow)
    named = {name for name, row in found.engines.items() if row.verdict != "within_noise"}
    assert named == {slow}
    row = found.engines[slow]
    assert row.verdict == "worse"
    assert row.ci95[0] <= 1.2 <= row.ci95[1]
    assert found.verdict.startswith(f"worse: {slow} 1.")
    assert engine_comparison_as_text(found).endswith(found.verdict)


def test_one_that_takes_less_is_better(bundle: Bundle, other: Bundle) -> None:
    found = compared(bundle, other, slow="denoise", factor=0.8)
    assert found.verdict.startswith("better: denoise 0.")
    assert found.engines["denoise"].ratio == pytest.approx(0.8, rel=0.05)
