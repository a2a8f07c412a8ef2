"""Resamples a recording to rows at the camera's rate: an image, the joints and their command.

A recording has images and joint states at different rates, and gaps where something was late. A
training data set has one row per camera period and no gaps.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from runtime.mailbox import FrameMsg, StateMsg
from runtime.recording.reader import Recording
from v2a.errors import ConfigError

Ints = npt.NDArray[np.int64]

ROWS_MIN = 2  # motion needs two rows
# In camera periods. An image further away from its row, or an older joint reading, leaves a gap.
PICTURE_OFF_MAX = 1.0
STATE_AGE_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Episode:
    """Rows without a gap, of one epoch."""

    task: str
    t_ns: Ints  # [n]
    frame_seq: Ints  # [n]: the image nearest to the row's time
    position_rad: npt.NDArray[np.float64]  # [n, J]: the last reading at or before that time
    command_rad: npt.NDArray[np.float64]  # [n, J]: the first command at or after that time


def read_rows(recording: Recording) -> tuple[int, list[Episode]]:
    """Return the camera's measured rate, rounded to Hz, and the episodes in order.

    Raises ConfigError if the recording has no episode.
    """
    frames: dict[int, list[FrameMsg]] = defaultdict(list)
    states: dict[int, list[StateMsg]] = defaultdict(list)
    for frame in recording.frame_heads():
        frames[frame.epoch].append(frame)
    for state in recording.states():
        states[state.epoch].append(state)
    fps, tasks = _rate(frames), recording.instructions()
    episodes = [
        episode
        for epoch in sorted(frames)
        for episode in _episodes(
            tasks[min(epoch, len(tasks) - 1)], frames[epoch], states[epoch], fps
        )
    ]
    if not episodes:
        raise ConfigError(
            f"{recording.path}: has no {ROWS_MIN} successive images with joint states; record a "
            "longer run"
        )
    return fps, episodes


def _rate(frames: dict[int, list[FrameMsg]]) -> int:
    """Measure the rate by the median interval, which a lost or late image does not change."""
    periods_ns = [np.diff([frame.t_capture_ns for frame in epoch]) for epoch in frames.values()]
    every_ns = np.concatenate([*periods_ns, np.zeros(0)])
    return max(round(1e9 / np.median(every_ns)), 1) if len(every_ns) else 1


def _episodes(
    task: str, frames: list[FrameMsg], states: list[StateMsg], fps: int
) -> Iterator[Episode]:
    if not states:
        return
    frames_ns = np.array([frame.t_capture_ns for frame in frames])
    states_ns = np.array([state.t_capture_ns for state in states])
    grid_ns = even_times(frames_ns[0], frames_ns[-1], fps)
    picture, picture_off_ns = nearest(frames_ns, grid_ns)
    # A reading carries the command of the tick before. So the first command at or after a row's
    # time comes with the second reading at or after it.
    reading = np.searchsorted(states_ns, grid_ns, "right") - 1
    commanded = np.searchsorted(states_ns, grid_ns, "left") + 1
    age_ns = grid_ns - states_ns[reading.clip(0)]
    sound = (
        (picture_off_ns * fps <= PICTURE_OFF_MAX * 1e9)
        & (reading >= 0)
        & (age_ns * fps <= STATE_AGE_MAX * 1e9)
        & (commanded < len(states))
    )
    for rows in _runs(sound):
        yield Episode(
            task,
            grid_ns[rows],
            np.array([frames[index].seq for index in picture[rows]]),
            np.stack([states[index].position_rad for index in reading[rows]]),
            np.stack([states[index].command_rad for index in commanded[rows]]),
        )


def even_times(first_ns: int, last_ns: int, fps: int) -> Ints:
    """Return `fps` times per second from `first_ns` to about `last_ns`, int64 [n] ns.

    The last time is within half a period of `last_ns`.
    """
    count = int((last_ns - first_ns) * fps / 1e9 + 0.5) + 1
    times: Ints = first_ns + np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    return times


def nearest(sorted_ns: Ints, wanted_ns: Ints) -> tuple[Ints, Ints]:
    """Find for each of `wanted_ns`, [n], the nearest of `sorted_ns`, [m].

    Returns the indices and the distances in ns, both int64 [n].
    """
    right = np.searchsorted(sorted_ns, wanted_ns).clip(0, len(sorted_ns) - 1)
    left = (right - 1).clip(0)
    nearer_left = wanted_ns - sorted_ns[left] <= np.abs(sorted_ns[right] - wanted_ns)
    index: Ints = np.where(nearer_left, left, right)
    return index, np.abs(sorted_ns[index] - wanted_ns)


def _runs(sound: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """Yield the runs of True that are long enough for an episode."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sound, [False]])))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= ROWS_MIN:
            yield slice(start, end)
