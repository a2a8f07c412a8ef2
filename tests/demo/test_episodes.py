"""The real thing beside the virtual clock: threads, a serial port and a process, and lockstep."""

from __future__ import annotations

import pytest

from demo.episodes import BUNDLE, run_episodes
from demo.statistics import rate
from demo.study import Bench
from v2a.bundle import load_bundle

pytestmark = [pytest.mark.real_time, pytest.mark.alone]

EPISODES = range(20)


def test_real_time_and_lockstep_agree_within_the_interval() -> None:
    session = run_episodes(load_bundle(BUNDLE), "puck", EPISODES, lambda done, result: None)
    bench = Bench("async")
    try:
        virtual = rate([bench.play(seed, "puck").success for seed in EPISODES])
    finally:
        bench.close()
    real = rate([result.success for result in session.results])
    low = max(real["ci95"][0], virtual["ci95"][0])
    high = min(real["ci95"][1], virtual["ci95"][1])
    assert low <= high, f"no common success rate: real time {real}, lockstep {virtual}"
    assert [result.seed for result in session.results] == list(EPISODES)
    assert session.run.stages["denoise"].n > 10 * len(EPISODES)
