"""System 1 makes no chunk from a frame or from joint positions that are too old."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import pytest

from runtime.status import joints, line, state
from tests.runtime.conftest import World
from v2a.bundle import Bundle


@pytest.fixture
def world(bundle: Bundle) -> Iterator[World]:
    """A robot that made chunks for a second."""
    world = World(bundle)
    with world.lockstep as lockstep:
        lockstep.run(1.0)
        assert world.workers.system1.counts["chunks"] > 0
        yield world


def put_frame(world: World, taken_ns: int, now_ns: int) -> None:
    frame = world.workers.mailboxes.frame.get()
    assert frame is not None
    newer = dataclasses.replace(frame, seq=frame.seq + 1, t_capture_ns=taken_ns)
    world.workers.mailboxes.frame.put(newer, now_ns)


def test_joint_positions_of_long_ago_make_no_chunk(world: World) -> None:
    """As if the control process had stopped telling them, while the camera goes on."""
    workers = world.workers
    old = workers.mailboxes.state.get()
    assert old is not None
    world.clock.advance_ns(1_000_000_000)
    now_ns = world.clock.now_ns()
    put_frame(world, now_ns, now_ns)
    assert workers.system1.step(now_ns) is None
    assert workers.system1.counts["state_too_old"] == 1
    workers.mailboxes.state.put(
        dataclasses.replace(old, seq=old.seq + 1, t_capture_ns=now_ns), now_ns
    )
    assert workers.system1.step(now_ns) is not None


def test_a_picture_of_long_ago_makes_no_chunk(world: World) -> None:
    workers = world.workers
    taken_ns = world.clock.now_ns() + 200_000_000  # System 1 waits for a frame of that time
    world.clock.advance_ns(2_300_000_000)  # `camera.timeout_s` is 2 s
    now_ns = world.clock.now_ns()
    put_frame(world, taken_ns, now_ns)
    assert workers.system1.step(now_ns) is None
    assert workers.system1.counts["frame_too_old"] == 1


def test_the_screen_says_that_its_data_is_old(world: World) -> None:
    workers = world.workers
    assert "base +" in joints(workers)
    workers.control.told_ns = world.clock.now_ns()
    world.clock.advance_ns(3_000_000_000)
    assert joints(workers).startswith("no reading for 3.")
    assert state(workers).startswith("NO TICK FOR 3.0 S  before: DISARMED")
    assert line(workers).startswith("no tick for 3.0 s")
