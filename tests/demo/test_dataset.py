"""Training data: collected whole, drawn only where it may be drawn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch", reason="training needs torch (extra: export)")

import torch

from demo import arm, collect, dataset, expert, task
from demo.arm import F64
from demo.collect import CHUNK, FIELDS, STEPS, Outcome
from demo.dataset import FIRST, Episodes, read_outs
from demo.physics import World
from demo.picture import U8

COUNT = 4
HELD_OUT = 1


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("episodes") / "base"
    collect.collect(folder, COUNT, 1, collect.disturbed_episode)
    return folder


@pytest.fixture
def episodes(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Episodes:
    monkeypatch.setattr(dataset, "HELD_OUT", HELD_OUT)
    return Episodes({folder: 1.0})


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """What episode 2 of the folder was collected from."""
    return collect.disturbed_episode(2)


def test_a_set_has_every_field_of_every_episode(folder: Path, outcome: Outcome) -> None:
    assert not list(folder.parent.glob("*.part"))
    for name, (shape, dtype) in FIELDS.items():
        array = np.load(folder / f"{name}.npy", mmap_mode="r")
        assert array.shape == (COUNT, STEPS, *shape)
        assert array.dtype == dtype
        values = outcome.arrays[name]
        np.testing.assert_array_equal(array[2, : len(values)], values.astype(dtype))
        assert not array[2, len(values) :].any()


def test_every_state_is_labelled_by_the_teacher_whatever_the_arm_did(outcome: Outcome) -> None:
    chunk, command = outcome.arrays["chunk_rad"], outcome.arrays["command_rad"]
    assert chunk.shape[1:] == (CHUNK, 5)
    np.testing.assert_array_equal(chunk[:, 0], command)
    puck = outcome.arrays["puck"][7]
    label = expert.rollout(command[7], puck[:2], puck[2:], CHUNK)
    np.testing.assert_allclose(chunk[7], label, atol=1e-12)


def test_a_disturbed_arm_keeps_to_its_limits(outcome: Outcome) -> None:
    command = outcome.arrays["command_rad"]
    limit = arm.VELOCITY_LIMIT_RAD_S * expert.STEP_S
    assert np.all(np.abs(np.diff(command, axis=0)) <= limit + 1e-12)
    assert np.all((command >= arm.LOWER_RAD) & (command <= arm.UPPER_RAD))
    assert np.all(command[: task.WARM_UP_STEPS] == command[0])


def test_the_expert_succeeds_undisturbed() -> None:
    def driver(step: int, world: World, command: F64, image: U8) -> F64:
        target: F64 = expert.rollout(command, world.puck_m, world.puck_velocity_m_s, 2)[1]
        return target

    outcome = collect.play(task.scenario(11), driver, np.random.default_rng(0))
    assert outcome.success
    valid = outcome.arrays["valid"]
    np.testing.assert_array_equal(valid, np.arange(len(valid)) >= FIRST)


def test_draws_are_valid_states_and_no_condition_is_from_the_future(episodes: Episodes) -> None:
    batch = episodes.draw(np.random.default_rng(0), 2000)
    valid = episodes.take("valid", batch.episode, batch.now)
    assert valid.all()
    assert np.all(batch.seen <= batch.now)
    assert np.all(batch.seen >= FIRST)
    age = batch.now - batch.seen
    assert age.min() == 0
    assert age.max() > 7  # the tail


def test_held_out_episodes_are_only_drawn_when_asked_for(episodes: Episodes) -> None:
    rng = np.random.default_rng(1)
    training = {*episodes.draw(rng, 2000).episode.tolist()}
    held_out = {*episodes.held_out().draw(rng, 500).episode.tolist()}
    assert training == set(range(COUNT - HELD_OUT))
    assert held_out == set(range(COUNT - HELD_OUT, COUNT))


def test_a_clip_ends_at_its_newest_step_oldest_first(episodes: Episodes, folder: Path) -> None:
    puck = np.load(folder / "puck.npy")
    clip = episodes.clip("puck", np.array([2, 0]), np.array([9, 5]), 6)
    assert clip.shape == (2, 6, 4)
    np.testing.assert_array_equal(clip[0], puck[2, 4:10])
    np.testing.assert_array_equal(clip[1], puck[0, 0:6])


def test_firm_labels_press_the_ring_onto_the_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dataset, "HELD_OUT", HELD_OUT)
    episode, step = np.nonzero(np.load(folder / "valid.npy"))
    usual, pressing = (
        episodes.take("chunk_rad", episode, step)[:, -1].double().numpy()
        for episodes in (Episodes({folder: 1.0}), Episodes({folder: 1.0}, expert.FIRM))
    )
    heights = arm.ring_position(usual)[:, 2]
    down = np.abs(heights - expert.DOWN_M) < 1e-4
    assert down.sum() > 20
    lower = np.median(arm.ring_position(pressing)[down, 2])
    assert lower == pytest.approx(expert.FIRM.down_m, abs=1e-4)
    above = heights > expert.HOVER_M - 1e-4
    earlier_m = 0.1 * (expert.USUAL.down_after_s - expert.FIRM.down_after_s)
    places = arm.ring_position(pressing[above]), arm.ring_position(usual[above])
    np.testing.assert_allclose(*places, atol=earlier_m)


def test_shares_decide_between_sets(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dataset, "HELD_OUT", HELD_OUT)
    # The same folder under another name is another set to draw from.
    both = Episodes({folder: 0.75, folder / "." / ".." / folder.name: 0.25})
    assert both.count == 2 * COUNT
    batch = both.draw(np.random.default_rng(2), 4000)
    assert (batch.episode >= COUNT).mean() == pytest.approx(0.25, abs=0.03)
    second = np.array([COUNT + 1])
    step = np.array([8])
    assert torch.equal(both.take("puck", second, step), both.take("puck", second - COUNT, step))


def test_read_outs_are_about_unit_scale_and_know_the_plan(episodes: Episodes) -> None:
    batch = episodes.draw(np.random.default_rng(3), 500)
    puck = episodes.take("puck", batch.episode, batch.now)
    wanted = read_outs(puck)
    assert wanted.shape == (500, 7)
    assert wanted.dtype == torch.float32
    assert wanted.abs().max() < 4.0
    target = expert.ring_target(puck[:, :2].double().numpy(), puck[:, 2:].double().numpy())
    aim = (target[:, :2] - expert.CENTRE_M) / 0.1
    np.testing.assert_allclose(wanted[:, 4:6], aim, atol=1e-5)
