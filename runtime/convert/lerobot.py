"""Exports a recording as a LeRobotDataset v3.0: Parquet tables, MP4 videos and JSON.

The format follows lerobot 0.4.4: `lerobot/datasets/lerobot_dataset.py`, `utils.py` and
`compute_stats.py`. This file does not import lerobot, which needs torch. Each episode has its own
table and video, which the format allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any, Final, TypedDict

import numpy as np
import numpy.typing as npt

from runtime.convert.rows import Episode, read_rows
from runtime.convert.video import VIDEO, mp4
from runtime.mailbox import FrameMsg, Image
from runtime.recording.reader import Recording
from v2a.files import new_folder
from v2a.terminal import Bar

PICTURE: Final = "observation.images.camera"
FILES_A_CHUNK: Final = 1000  # lerobot's default, like the sizes in `_info`
DATA_PATH: Final = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
VIDEO_PATH: Final = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
EPISODES_PATH: Final = "episodes/chunk-000/file-000.parquet"
# Tells pandas to use the task as the index, where lerobot looks for it.
PANDAS: Final = {
    "index_columns": ["task"],
    "column_indexes": [],
    "columns": [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy_type}
        for name, kind, numpy_type in (
            ("task_index", "int64", "int64"),
            ("task", "unicode", "object"),
        )
    ],
}

QUANTILES: Final = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
STATS_PICTURES: Final = 100  # pictures per episode in the statistics, evenly spread
STATS_SIDE: Final = 150  # longer side of such a picture in pixels, about

Columns = dict[str, npt.NDArray[Any]]
Stat = list[float] | list[list[list[float]]]  # by joint [n], or by channel [3, 1, 1]
Stats = dict[str, Mapping[str, Stat]]  # feature -> min, max, mean, std, quantiles, count
EpisodeRow = dict[str, int | float | list[str] | Stat]


class Feature(TypedDict):
    """One column of the data set."""

    dtype: str
    shape: list[int]
    names: list[str] | None


class VideoFeature(Feature):
    """A camera's column, with facts about its video."""

    info: dict[str, object]


class Info(TypedDict):
    """The data set's `meta/info.json`."""

    codebase_version: str
    robot_type: str
    total_episodes: int
    total_frames: int
    total_tasks: int
    chunks_size: int
    data_files_size_in_mb: int
    video_files_size_in_mb: int
    fps: int
    splits: dict[str, str]
    data_path: str
    video_path: str
    features: Mapping[str, Feature]


def export(recording: Recording, folder: Path) -> None:
    """Write `recording` as a data set into the new `folder`.

    Raises ConfigError if the folder exists or the recording has no episode, and
    ModuleNotFoundError if pyarrow or PyAV is not installed.
    """
    import av  # noqa: F401  fail before writing if the extra [lerobot] is missing
    import pyarrow  # noqa: F401

    fps, episodes = read_rows(recording)
    new_folder(folder, "export")
    samples = []
    with Bar("exporting", len(episodes)) as bar:
        for index, pictures in enumerate(_pictures(recording, episodes)):
            path = folder / VIDEO_PATH.format(video_key=PICTURE, **_file(index))
            samples.append(_write_video(path, pictures, fps))
            bar.done()
    tasks = list(dict.fromkeys(episode.task for episode in episodes))
    tables = list(_tables(episodes, tasks, fps))
    for index, table in enumerate(tables):
        _write_table(folder / DATA_PATH.format(**_file(index)), table)
    rows = [
        _episode_row(episode, table, fps) | _flat(_stats(table, sample))
        for episode, table, sample in zip(episodes, tables, samples, strict=True)
    ]
    whole = {name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
    meta = folder / "meta"
    _write_table(meta / EPISODES_PATH, {name: [row[name] for row in rows] for name in rows[0]})
    _write_tasks(meta / "tasks.parquet", tasks)
    _write_json(meta / "stats.json", _stats(whole, np.concatenate(samples)))
    # Written last: without it no reader takes the folder for a complete data set.
    _write_json(meta / "info.json", _info(recording, fps, episodes, tasks))


def _file(index: int) -> dict[str, int]:
    """Chunk and file number of an episode's files."""
    return {"chunk_index": index // FILES_A_CHUNK, "file_index": index % FILES_A_CHUNK}


def _pictures(recording: Recording, episodes: list[Episode]) -> Iterator[Iterator[Image]]:
    """For each episode, one picture uint8 [h, w, 3] per row. Reads them lazily."""
    rows = {
        int(seq): (index, int(count))
        for index, episode in enumerate(episodes)
        for seq, count in zip(*np.unique(episode.frame_seq, return_counts=True), strict=True)
    }

    def repeated(frames: Iterator[FrameMsg]) -> Iterator[Image]:
        """Yield each frame's image, uint8 [H, W, 3], once for every row that uses it."""
        for frame in frames:
            yield from [frame.image] * rows[frame.seq][1]

    shown = (frame for frame in recording.frames() if frame.seq in rows)
    for _, frames in groupby(shown, key=lambda frame: rows[frame.seq][0]):
        yield repeated(frames)


def _write_video(path: Path, pictures: Iterator[Image], fps: int) -> npt.NDArray[np.uint8]:
    """Write the video; return some of its pictures, thinned, uint8 [n, h, w, 3]."""
    kept: list[Image] = []
    every = 1
    with mp4(path, fps) as write:
        for index, picture in enumerate(pictures):
            write(picture)
            thin = max(round(max(picture.shape[:2]) / STATS_SIDE), 1)
            if index % every == 0:
                kept.append(picture[::thin, ::thin])
            if len(kept) > STATS_PICTURES:
                kept, every = kept[::2], every * 2
    return np.stack(kept)


def _tables(episodes: list[Episode], tasks: list[str], fps: int) -> Iterator[Columns]:
    """The columns of each episode: one row per control tick."""
    before = 0
    for index, episode in enumerate(episodes):
        rows = np.arange(len(episode.t_ns))
        yield {
            "observation.state": episode.position_rad.astype(np.float32),
            "action": episode.command_rad.astype(np.float32),
            "timestamp": (rows / fps).astype(np.float32),
            "frame_index": rows,
            "episode_index": np.full(len(rows), index),
            "index": before + rows,
            "task_index": np.full(len(rows), tasks.index(episode.task)),
        }
        before += len(rows)


def _episode_row(episode: Episode, table: Columns, fps: int) -> EpisodeRow:
    index, length = int(table["episode_index"][0]), len(episode.t_ns)
    place = _file(index)
    return {
        "episode_index": index,
        "tasks": [episode.task],
        "length": length,
        "dataset_from_index": int(table["index"][0]),
        "dataset_to_index": int(table["index"][-1]) + 1,
        **{f"data/{name}": number for name, number in place.items()},
        **{f"videos/{PICTURE}/{name}": number for name, number in place.items()},
        f"videos/{PICTURE}/from_timestamp": 0.0,
        f"videos/{PICTURE}/to_timestamp": length / fps,
        "meta/episodes/chunk_index": 0,
        "meta/episodes/file_index": 0,
    }


def _stats(table: Columns, pictures: npt.NDArray[np.uint8]) -> Stats:
    """The statistics by which training scales: each column's, and the pictures' by channel.

    `pictures` is uint8 [n, h, w, 3]; their statistics are of values from 0 to 1.
    """
    found: Stats = {
        name: _spread(column.reshape(len(column), -1)) for name, column in table.items()
    }
    channels = _spread(pictures.reshape(-1, 3) / 255.0) | {"count": [len(pictures)]}
    by_channel: dict[str, Stat] = {
        name: values if name == "count" else [[[value]] for value in values]
        for name, values in channels.items()
    }
    return {**found, PICTURE: by_channel}


def _spread(values: npt.NDArray[Any]) -> dict[str, list[float]]:
    """Statistics over the rows of `values` [n, d]: each is [d]."""
    quantiles = np.quantile(values, list(QUANTILES.values()), axis=0)
    return {
        "min": values.min(axis=0).tolist(),
        "max": values.max(axis=0).tolist(),
        "mean": values.mean(axis=0).tolist(),
        "std": values.std(axis=0).tolist(),
        **{name: row.tolist() for name, row in zip(QUANTILES, quantiles, strict=True)},
        "count": [len(values)],
    }


def _flat(stats: Stats) -> EpisodeRow:
    return {
        f"stats/{feature}/{name}": value
        for feature, found in stats.items()
        for name, value in found.items()
    }


def _info(recording: Recording, fps: int, episodes: list[Episode], tasks: list[str]) -> Info:
    return {
        "codebase_version": "v3.0",
        "robot_type": recording.header.config.robot.name,
        "total_episodes": len(episodes),
        "total_frames": sum(len(episode.t_ns) for episode in episodes),
        "total_tasks": len(tasks),
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {"train": f"0:{len(episodes)}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": _features(recording, fps),
    }


def _features(recording: Recording, fps: int) -> dict[str, Feature]:
    names = [joint.name for joint in recording.header.config.robot.joints]
    joints: Feature = {"dtype": "float32", "shape": [len(names)], "names": names}
    height, width = next(recording.frames()).image.shape[:2]
    size = {"video.height": height, "video.width": width, "video.fps": fps}
    video: VideoFeature = {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": VIDEO | size,
    }
    counters = ("frame_index", "episode_index", "index", "task_index")
    return {
        "observation.state": joints,
        "action": joints,
        PICTURE: video,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in counters},
    }


def _write_tasks(path: Path, tasks: list[str]) -> None:
    columns = {"task_index": list(range(len(tasks))), "task": tasks}
    _write_table(path, columns, {"pandas": json.dumps(PANDAS)})


def _write_table(
    path: Path, columns: Mapping[str, Any], metadata: dict[str, str] | None = None
) -> None:
    import pyarrow
    from pyarrow import parquet

    arrays = {name: _arrow(column) for name, column in columns.items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(metadata), path)


def _arrow(column: Any) -> Any:
    """A column for Arrow; [n, d] becomes lists of fixed length, like lerobot's own tables."""
    import pyarrow

    if isinstance(column, np.ndarray) and column.ndim == 2:
        flat = pyarrow.array(column.ravel())
        return pyarrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return pyarrow.array(column)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
