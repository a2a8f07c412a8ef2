"""Resamples a recording to rows at the camera's rate: an image, the joints and their command.

A recording has images and joint states at different rates, and gaps where something was late. A
training data set has one row per camera period and no gaps.
"""

from __future__ import annotations

from array import array
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from runtime.recording.reader import Recording
from v2a.errors import ConfigError

Ints = npt.NDArray[np.int64]

ROWS_MIN = 2  # motion needs two rows
ROWS_MAX = 10_000_000  # four days at 30 Hz
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
    epoch: int = 0
    hole_s: float = 0.0  # what of the epoch is left out before these rows
    ends_epoch: bool = True  # whether the epoch has no further rows


@dataclass(slots=True)
class _Epoch:
    """The times and values of one epoch, in little memory."""

    frame_ns: array[int] = field(default_factory=lambda: array("q"))
    frame_seq: array[int] = field(default_factory=lambda: array("q"))
    state_ns: array[int] = field(default_factory=lambda: array("q"))
    angles_rad: array[float] = field(default_factory=lambda: array("d"))  # positions, commands


def read_rows(recording: Recording, fps: int | None = None) -> tuple[int, list[Episode]]:
    """Return the rate of the rows in Hz and the episodes in order.

    Without `fps` the rate is the camera's measured rate, rounded to Hz. Raises ConfigError if the
    recording has no episode.
    """
    epochs: defaultdict[int, _Epoch] = defaultdict(_Epoch)
    for frame in recording.frame_heads():
        epochs[frame.epoch].frame_ns.append(frame.t_capture_ns)
        epochs[frame.epoch].frame_seq.append(frame.seq)
    for state in recording.states():
        epochs[state.epoch].state_ns.append(state.t_capture_ns)
        epochs[state.epoch].angles_rad.extend(state.position_rad.tolist())
        epochs[state.epoch].angles_rad.extend(state.command_rad.tolist())
    period_ns = _period_ns(epochs.values())
    fps, tasks = fps or max(round(1e9 / period_ns), 1), recording.instructions()
    try:
        episodes = [
            episode
            for number in sorted(epochs)
            for episode in _episodes(
                tasks[min(number, len(tasks) - 1)], number, epochs[number], fps, period_ns
            )
        ]
    except ValueError as error:
        raise ConfigError(f"{recording.path}: {error}") from error
    if not episodes:
        raise ConfigError(
            f"{recording.path}: has no {ROWS_MIN} successive images with joint states; record a "
            "longer run"
        )
    return fps, episodes


def _period_ns(epochs: Iterable[_Epoch]) -> float:
    """Measure the camera's period by the median, which a lost or late image does not change."""
    periods_ns = [np.diff(epoch.frame_ns) for epoch in epochs]
    every_ns = np.concatenate([*periods_ns, np.zeros(0)])
    return max(float(np.median(every_ns)), 1.0) if len(every_ns) else 1e9


def _episodes(
    task: str, number: int, epoch: _Epoch, fps: int, period_ns: float
) -> Iterator[Episode]:
    frames_ns, states_ns = np.array(epoch.frame_ns), np.array(epoch.state_ns)
    if not len(states_ns) or not len(frames_ns):
        return
    angles_rad = np.array(epoch.angles_rad).reshape(len(states_ns), 2, -1)
    frame_seq = np.array(epoch.frame_seq)
    grid_ns = even_times(int(frames_ns[0]), int(frames_ns[-1]), fps)
    picture, picture_off_ns = nearest(frames_ns, grid_ns)
    # A reading carries the command of the tick before. So the first command at or after a row's
    # time comes with the second reading at or after it.
    reading = np.searchsorted(states_ns, grid_ns, "right") - 1
    commanded = np.searchsorted(states_ns, grid_ns, "left") + 1
    age_ns = grid_ns - states_ns[reading.clip(0)]
    longest_ns = max(1e9 / fps, period_ns)
    sound = (
        (picture_off_ns <= PICTURE_OFF_MAX * longest_ns)
        & (reading >= 0)
        & (age_ns <= STATE_AGE_MAX * longest_ns)
        & (commanded < len(states_ns))
    )
    runs = list(_runs(sound))
    ends = [0, *(rows.stop for rows in runs)]
    for rows, end in zip(runs, ends, strict=False):
        yield Episode(
            task,
            grid_ns[rows],
            frame_seq[picture[rows]],
            angles_rad[reading[rows], 0],
            angles_rad[commanded[rows], 1],
            number,
            (rows.start - end) / fps,
            rows is runs[-1],
        )


def even_times(first_ns: int, last_ns: int, fps: int) -> Ints:
    """Return `fps` times per second from `first_ns` to about `last_ns`, int64 [n] ns.

    The last time is within half a period of `last_ns`. Raises ValueError beyond `ROWS_MAX` times.
    """
    count = int((last_ns - first_ns) * fps / 1e9 + 0.5) + 1
    if not 0 < count <= ROWS_MAX:
        raise ValueError(
            f"its pictures span {(last_ns - first_ns) / 1e9:.3g} s; v2a did not record this"
        )
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
