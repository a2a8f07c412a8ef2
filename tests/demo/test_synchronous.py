"""System 2 inside System 1, as released, against the runtime's way side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.synchronous import synchronous
from runtime.lockstep import Lockstep
from tests.runtime.conftest import World, after_ms, write_tiny_bundle
from v2a.bundle import Bundle, load_bundle

DELAYS = {"system1": after_ms(20), "system2": after_ms(300)}


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    return load_bundle(write_tiny_bundle(tmp_path / "bundle", lambda graph, path: path.touch()))


def waiting(world: World, every: int) -> Lockstep:
    """The two-joint robot with System 2 inside every `every`-th call of System 1."""
    workers, delays = synchronous(world.workers, DELAYS, every)
    world.workers = workers
    return Lockstep(workers, world.clock, world._plant, delays)


def test_side_by_side_nobody_waits_for_system_2(bundle: Bundle) -> None:
    world = World(bundle, delays=DELAYS)
    with world.lockstep as lockstep:
        lockstep.run(0.9)
        chunk = world.workers.mailboxes.chunk.get()
    assert chunk is not None
    assert chunk.t_publish_ns - chunk.t_capture_ns == 20_000_000


def test_inside_system_1_every_8th_chunk_waits(bundle: Bundle) -> None:
    world = World(bundle)
    with waiting(world, 8) as lockstep:
        chunks = world.workers.mailboxes.chunk
        lockstep.run(3.0, until=lambda: chunks.get() is not None)
        chunk = chunks.get()
        assert chunk is not None
        assert chunk.t_publish_ns - chunk.t_capture_ns == 320_000_000
        lockstep.run(4.0)
        assert world.workers.system2.counts["conditions"] == 3  # calls 0, 8 and 16


def test_a_new_episode_begins_with_a_condition_of_its_own(bundle: Bundle) -> None:
    world = World(bundle)
    with waiting(world, 8) as lockstep:
        lockstep.run(1.5)
        before = world.workers.system2.counts["conditions"]
        epoch = lockstep.reset()
        lockstep.run(1.5)
        condition = world.workers.mailboxes.condition.get()
    assert world.workers.system2.counts["conditions"] == before + 1
    assert condition is not None
    assert condition.epoch == epoch
