"""Even rows from an uneven recording: property tests, and what a hole does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from runtime.convert.rows import Episode, even_times, nearest, read_rows
from runtime.mailbox import FrameMsg, StateMsg
from runtime.recording.messages import NO_IMAGE
from v2a.errors import ConfigError

MS = 1_000_000


class Fake:
    """A recording of pictures and states at these times, in ms; every angle tells its time."""

    path = Path("fake")

    def __init__(
        self, frames_ms: dict[int, list[float]], states_ms: dict[int, list[float]]
    ) -> None:
        self._frames_ms, self._states_ms = frames_ms, states_ms

    def frame_heads(self) -> Iterator[FrameMsg]:
        times = [(epoch, t) for epoch, times in self._frames_ms.items() for t in times]
        for seq, (epoch, t) in enumerate(times, start=1):
            yield FrameMsg(seq, round(t * MS), round(t * MS), 0, epoch, NO_IMAGE, ())

    def states(self) -> Iterator[StateMsg]:
        """As control makes them: the command is the one that was sent at the tick before."""
        for epoch, times in self._states_ms.items():
            before = [times[0], *times] if times else []
            for seq, (t, sent) in enumerate(zip(times, before, strict=False), start=1):
                angles = np.array([t]), np.array([sent])
                yield StateMsg(seq, round(t * MS), round(t * MS), 0, epoch, *angles)

    def instructions(self) -> list[str]:
        return ["first", "second"]


Times = dict[int, list[float]]


def rows(frames_ms: Times, states_ms: Times) -> list[Episode]:
    return read_rows(Fake(frames_ms, states_ms))[1]  # type: ignore[arg-type]


def every(period_ms: float, end_ms: float, start_ms: float = 0.0) -> list[float]:
    return np.arange(start_ms, end_ms, period_ms).tolist()


def test_a_row_has_the_last_reading_before_it_and_the_first_command_after_it() -> None:
    (episode,) = rows({0: every(50, 1000)}, {0: every(20, 1200, 3)})
    assert episode.frame_seq.tolist() == list(range(2, 21))  # at 0 ms there was no reading yet
    t_ms = episode.t_ns / MS
    read_ms, sent_ms = episode.position_rad[:, 0], episode.command_rad[:, 0]
    assert np.all((read_ms <= t_ms) & (t_ms < read_ms + 20))
    assert np.all((t_ms <= sent_ms) & (sent_ms < t_ms + 20))
    assert episode.task == "first"


def test_each_epoch_is_an_episode_with_its_own_task() -> None:
    frames = {epoch: every(50, 1000 * epoch + 500, 1000 * epoch) for epoch in (0, 1, 2)}
    states = {epoch: every(10, 1000 * epoch + 600, 1000 * epoch) for epoch in (0, 1, 2)}
    assert [episode.task for episode in rows(frames, states)] == ["first", "second", "second"]


def test_a_jittering_camera_with_a_lost_picture_gives_even_rows() -> None:
    random = np.random.default_rng(0)
    frames = [t + random.uniform(-8, 8) for t in every(50, 5000)]
    del frames[40]
    fps, (episode,) = read_rows(Fake({0: frames}, {0: every(10, 6000, -50)}))  # type: ignore[arg-type]
    assert fps == 20
    assert set(np.diff(episode.t_ns).tolist()) == {50 * MS}
    assert len(episode.t_ns) == 100
    assert np.count_nonzero(np.diff(episode.frame_seq) == 0) == 1  # one stands for the lost one


@pytest.mark.parametrize("what", ["pictures", "readings"])
def test_a_hole_ends_an_episode_and_the_next_begins_behind_it(what: str) -> None:
    frames, states = every(50, 4000), every(10, 4200, -50)
    holed = frames if what == "pictures" else states
    holed[:] = [t for t in holed if not 1500 < t < 2500]
    before, behind = rows({0: frames}, {0: states})
    assert before.t_ns[-1] <= 1700 * MS
    assert 2400 * MS <= behind.t_ns[0] <= 2550 * MS
    assert len(before.t_ns) + len(behind.t_ns) == pytest.approx(60, abs=4)


def test_without_two_rows_there_is_nothing_to_export() -> None:
    nothing: tuple[tuple[Times, Times], ...] = (
        ({0: [0.0]}, {0: every(10, 100)}),
        ({0: every(50, 500)}, {0: []}),
        ({}, {}),
    )
    for frames, states in nothing:
        with pytest.raises(ConfigError, match="has no 2 successive images with joint states"):
            rows(frames, states)


TIMES = st.lists(st.integers(0, 10**12), min_size=1, unique=True).map(sorted)


@given(TIMES, TIMES)
def test_nearest_is_as_near_as_the_nearest_of_all(there: list[int], wanted: list[int]) -> None:
    index, off = nearest(np.array(there), np.array(wanted))
    best = np.abs(np.subtract.outer(wanted, there)).min(axis=1)
    assert off.tolist() == best.tolist()
    assert np.abs(np.array(there)[index] - wanted).tolist() == best.tolist()


@given(st.integers(0, 10**15), st.integers(0, 10**11), st.integers(1, 240))
def test_even_times_do_not_drift(first_ns: int, length_ns: int, fps: int) -> None:
    times_ns = even_times(first_ns, first_ns + length_ns, fps)
    exact_ns = first_ns + np.arange(len(times_ns)) * 1e9 / fps
    assert np.abs(times_ns - exact_ns).max() <= 1
    assert abs(times_ns[-1] - first_ns - length_ns) <= 0.5e9 / fps + 1
