"""The study: the demo's own bundle in lockstep, repeatable, in every mode."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from demo import study
from demo.episodes import BUNDLE
from demo.plant import Result
from demo.statistics import rate
from demo.study import MODES, Bench, Block, available_modes, load_delays

EVERY = {"every_1": 1, "every_2": 2, "every_4": 4, "every_8": 8, "every_16": 16}


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with closing(Bench("async")) as bench:
        yield bench


def play_anew(mode: str, seeds: list[int]) -> list[Result]:
    with closing(Bench(mode)) as bench:
        return [bench.play(seed, "puck") for seed in seeds]


def test_every_mode_is_there() -> None:
    kinds = {"async", "no_motion", "no_condition", "synchronous", "with_noise", "pytorch"}
    assert set(MODES) == kinds | set(EVERY)
    assert {name: mode.every for name, mode in MODES.items() if mode.every} == EVERY
    assert MODES["no_motion"].without == ("motion",)
    assert MODES["no_condition"].without == ("spatial", "motion")
    assert {name: mode.synchronous for name, mode in MODES.items() if mode.synchronous} == {
        "synchronous": 8
    }
    assert {name for name, mode in MODES.items() if mode.noise_scale} == {"with_noise"}
    assert [name for name, mode in MODES.items() if mode.torch] == ["pytorch"]


def test_without_torch_the_mode_that_needs_it_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "find_spec", lambda name: None)
    assert available_modes() == [name for name in MODES if name != "pytorch"]


@pytest.mark.parametrize(("mode", "every"), [("every_1", 1), ("every_16", 16)])
def test_a_rate_is_counted_in_calls_of_system_1(mode: str, every: int) -> None:
    with closing(Bench(mode)) as bench:
        config = bench.workers.config
        assert config.system2.period_s == pytest.approx(every * config.system1.period_s)


def test_the_same_episode_ends_the_same_and_another_one_does_not() -> None:
    first = play_anew("async", [3, 4])
    assert [result.seed for result in first] == [3, 4]
    assert first == play_anew("async", [3, 4])
    assert first[0].ring_m != first[1].ring_m


@pytest.mark.parametrize(
    ("mode", "spatial", "motion"),
    [("async", True, True), ("no_motion", True, False), ("no_condition", False, False)],
)
def test_a_stream_that_is_taken_away_tells_system_1_nothing(
    mode: str, spatial: bool, motion: bool
) -> None:
    with closing(Bench(mode)) as bench:
        bench.play(5, "puck")
        condition = bench.workers.mailboxes.condition.get()
    assert condition is not None
    streams = np.split(condition.tensors["video_kv"], 2, axis=-2)
    # Without content, every token of a stream has the same keys and values: the biases.
    assert [bool(np.ptp(kv, axis=-2).max() > 1e-5) for kv in streams] == [spatial, motion]


def test_rarer_conditions_are_older(bench: Bench) -> None:
    with closing(Bench("every_16")) as rare:
        for each in (bench, rare):
            each.play(6, "puck")
        ages = [each.lockstep.summary().ages["condition_age"] for each in (bench, rare)]
    assert ages[1].max_ms > 2 * ages[0].max_ms


def test_the_synchronous_system_2_runs_inside_system_1() -> None:
    with closing(Bench("synchronous")) as bench:
        bench.play(7, "puck")
        counts = bench.lockstep.summary().counts
        assert counts["system1"]["chunks"] > 8
        assert counts["system2"]["conditions"] <= -(-counts["system1"]["chunks"] // 8) + 1


def test_torque_is_off_at_the_end_and_nothing_was_refused(bench: Bench) -> None:
    bench.play(8, "rebound")
    bench.lockstep.disarm()
    safety = bench.lockstep.summary().safety
    assert safety[-1].state == "disarmed"
    assert "fault" not in {change.state for change in safety}


def test_delays_are_drawn_from_the_measured_quantiles(tmp_path: Path) -> None:
    path = tmp_path / "delays.json"
    quantiles = {"system1": [10, 20, 90], "camera": [5, 5, 5]}
    path.write_text(json.dumps({"quantiles_ns": quantiles}))
    delays = load_delays(path)
    rng = np.random.default_rng(0)
    assert {delays["camera"](rng) for _ in range(9)} == {5}
    drawn = np.array([delays["system1"](rng) for _ in range(4000)])
    assert drawn.min() >= 10
    assert drawn.max() <= 90
    assert np.quantile(drawn, [0.25, 0.5, 0.75]) == pytest.approx([15, 20, 55], rel=0.1)


def test_the_measured_delays_are_of_every_worker() -> None:
    assert set(load_delays(study.DELAYS)) == {"camera", "system1", "system2"}


def test_a_study_plays_the_same_episodes_in_every_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(study, "BLOCK", 1)
    done: dict[str, list[int]] = {"async": [], "every_8": []}
    rows = study.study(
        "puck", range(9, 11), list(done), lambda mode, n: done[mode].append(n), processes=1
    )
    assert done == {"async": [1, 2], "every_8": [1, 2]}
    for mode, row in rows.items():
        won = [play_anew(mode, [seed])[0].success for seed in (9, 10)]
        assert row == {**rate(won), "what": MODES[mode].what}


def test_blocks_are_whole_episodes_in_order() -> None:
    block = Block("async", "puck", (12, 3), BUNDLE)
    assert block.play() == play_anew("async", [12, 3])
