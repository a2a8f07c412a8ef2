"""A recording as even rows: a picture, the joints and their command at each tick of the camera.

A recording has its pictures at one rate, its joint states at another, and holes where something was
late. Data sets for training have none of that: each row is one camera period after the one before.
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

ROWS_MIN = 2  # one row alone is no motion
# In camera periods: further from its row a picture, or older a joint reading, is a hole.
PICTURE_OFF_MAX = 1.0
STATE_AGE_MAX = 3.0


@dataclass(frozen=True, slots=True)
class Episode:
    """Rows without a hole, of one epoch."""

    task: str
    t_ns: Ints  # [n]
    frame_seq: Ints  # [n]: the picture nearest to the row's time
    position_rad: npt.NDArray[np.float64]  # [n, J]: the last reading at or before it
    command_rad: npt.NDArray[np.float64]  # [n, J]: the first command given at or after it


def read_rows(recording: Recording) -> tuple[int, list[Episode]]:
    """The camera's rate in Hz, measured and rounded, and the episodes in their order.

    Raises ConfigError where there is no episode.
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
            f"{recording.path}: no {ROWS_MIN} pictures in a row with joint states; record a "
            "longer run"
        )
    return fps, episodes


def _rate(frames: dict[int, list[FrameMsg]]) -> int:
    """From the median interval: a lost or late picture does not change it."""
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
    # A reading brings the command of the control tick before its own, so the first command at or
    # after a row came with the reading after the first one there.
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
    """From `first_ns`, `fps` a second, to the last within half a period of `last_ns`."""
    count = int((last_ns - first_ns) * fps / 1e9 + 0.5) + 1
    times: Ints = first_ns + np.round(np.arange(count) * (1e9 / fps)).astype(np.int64)
    return times


def nearest(sorted_ns: Ints, wanted_ns: Ints) -> tuple[Ints, Ints]:
    """For each of `wanted_ns` the index of the nearest of `sorted_ns`, and how far off it is."""
    right = np.searchsorted(sorted_ns, wanted_ns).clip(0, len(sorted_ns) - 1)
    left = (right - 1).clip(0)
    nearer_left = wanted_ns - sorted_ns[left] <= np.abs(sorted_ns[right] - wanted_ns)
    index: Ints = np.where(nearer_left, left, right)
    return index, np.abs(sorted_ns[index] - wanted_ns)


def _runs(sound: npt.NDArray[np.bool_]) -> Iterator[slice]:
    """The stretches of True, but for those that are too short."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], sound, [False]])))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= ROWS_MIN:
            yield slice(start, end)
