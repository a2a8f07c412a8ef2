"""What training feeds the policy: dropped streams, and the schedule of its steps."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (extra: export)")

import torch

from demo.losses import drop_streams
from demo.train import STAGES, Stage, learning_rate

SIZE = 4000
TOKENS = 2


@pytest.fixture(scope="module")
def dropped() -> np.ndarray:
    """Per episode (spatial value, motion value) after dropping; episode k has k + 1 and -(k + 1)
    in all its tokens before.
    """
    number = torch.arange(1.0, SIZE + 1)[:, None, None].expand(SIZE, TOKENS, 3)
    out = drop_streams(np.random.default_rng(0), number, -number)
    assert out.shape == (SIZE, 2 * TOKENS, 3)
    spatial, motion = out[:, :TOKENS], out[:, TOKENS:]
    assert torch.equal(spatial, spatial[:, :1, :1].expand_as(spatial))
    assert torch.equal(motion, motion[:, :1, :1].expand_as(motion))
    return torch.stack([spatial[:, 0, 0], motion[:, 0, 0]], dim=1).numpy()


def test_what_is_left_is_the_episodes_own_or_nothing(dropped: np.ndarray) -> None:
    number = np.arange(1, SIZE + 1)
    motion = dropped[:, 1]
    assert np.all((motion == -number) | (motion == 0))
    own_spatial = dropped[motion != 0, 0]
    assert np.all((own_spatial == number[motion != 0]) | (own_spatial == 0))


def test_without_motion_the_spatial_tokens_are_another_episodes(dropped: np.ndarray) -> None:
    number = np.arange(1, SIZE + 1)
    alone = (dropped[:, 1] == 0) & (dropped[:, 0] != 0)
    assert alone.mean() == pytest.approx(0.12, abs=0.02)
    assert np.all(dropped[alone, 0] != number[alone])


def test_each_combination_is_met_and_most_are_whole(dropped: np.ndarray) -> None:
    has_spatial, has_motion = (dropped != 0).T
    assert (has_spatial & has_motion).mean() == pytest.approx(0.80, abs=0.03)
    assert (~has_spatial & has_motion).mean() == pytest.approx(0.04, abs=0.015)
    assert (~has_spatial & ~has_motion).mean() == pytest.approx(0.04, abs=0.015)


@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_the_learning_rate_rises_to_its_peak_and_falls_to_a_twentieth(stage: Stage) -> None:
    rates = np.array([learning_rate(step, stage) for step in range(stage.steps)])
    peak = int(rates.argmax())
    assert rates[peak] == pytest.approx(stage.lr)
    assert peak <= stage.steps // 20
    assert np.all(np.diff(rates[: peak + 1]) > 0)
    assert np.all(np.diff(rates[peak + 1 :]) < 0)
    assert rates[0] < stage.lr / 10
    assert rates[-1] == pytest.approx(stage.lr / 20, rel=0.01)
