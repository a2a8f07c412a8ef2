"""Exports a recording as a LeRobotDataset v3.0: Parquet tables, MP4 videos and JSON.

The format follows lerobot 0.4.4: `lerobot/datasets/lerobot_dataset.py`, `utils.py` and
`compute_stats.py`. This file does not import lerobot, which needs torch. Each episode has its own
table and video, which the format allows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple, TypedDict

import click
import numpy as np
import numpy.typing as npt

from runtime.convert.rows import Episode, read_rows
from runtime.convert.video import VIDEO, mp4
from runtime.mailbox import FrameMsg, Image
from runtime.recording.reader import Recording
from runtime.summary_model import utc_text
from v2a.errors import ConfigError
from v2a.files import changed_folder, new_folder, replacing, write_text
from v2a.terminal import Bar

PICTURE: Final = "observation.images.camera"
SUCCESS: Final = "next.success"
HOLES_NAMED: Final = 5
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
    v2a: dict[str, Any]  # the recordings that it was made from


class Options(NamedTuple):
    """What `v2a record export` asks for."""

    fps: int | None = None  # rate of the rows; None: the camera's
    append: bool = False  # to the data set that is there
    success: str | None = None  # "all", "none" or the epochs that succeeded, such as "0,2"


def export(recordings: Sequence[Recording], folder: Path, options: Options | None = None) -> None:
    """Write the recordings as one data set to the new `folder`, or append them to the one there.

    Raises ConfigError if the folder exists (or is no data set of ours, to append to), if a
    recording has no episode or does not fit the others, or if the disk refuses; the folder is then
    as before. Raises ModuleNotFoundError if pyarrow or PyAV is not installed.
    """
    import av  # noqa: F401  fail before writing if the extra [lerobot] is missing
    import pyarrow  # noqa: F401

    options = options or Options()
    place = changed_folder if options.append else new_folder
    with place(folder, "export") as beside:
        dataset = Dataset.open(beside) if options.append else Dataset(beside)
        for recording in recordings:
            _add(dataset, recording, options)
        dataset.finish()
    click.echo(f"{folder}: {dataset.said()}", err=True)


def _add(dataset: Dataset, recording: Recording, options: Options) -> None:
    fps, episodes = read_rows(recording, options.fps or dataset.fps)
    dataset.begin(recording, _info(recording, fps, options.success is not None))
    won = succeeded(options.success, {episode.epoch for episode in episodes})
    rows = sum(len(episode.t_ns) for episode in episodes)
    with Bar(f"exporting {recording.path.parent.name}", rows) as bar:
        for episode, pictures in zip(episodes, _pictures(recording, episodes), strict=True):
            path = dataset.folder / VIDEO_PATH.format(video_key=PICTURE, **_file(dataset.episodes))
            sample = _write_video(path, pictures, fps, bar)
            success = None if won is None else episode.epoch in won and episode.ends_epoch
            dataset.add(episode, sample, fps, success)
    holes = [episode for episode in episodes if episode.hole_s > 0]
    click.echo(
        f"{recording.path}: {len(episodes)} episodes, {rows} rows at {fps} Hz; "
        f"{len(holes)} holes left out"
        + "".join(
            f", {episode.hole_s:.1f} s before {(episode.t_ns[0] - recording.t0_ns) / 1e9:.1f} s"
            for episode in holes[:HOLES_NAMED]
        ),
        err=True,
    )


def succeeded(option: str | None, epochs: set[int]) -> set[int] | None:
    """The epochs that succeeded, by the option. Raises ConfigError for another one."""
    if option is None:
        return None
    if option in ("all", "none"):
        return epochs if option == "all" else set()
    numbers = [int(text) for text in option.split(",") if text.isdecimal()]
    if not numbers or len(numbers) != option.count(",") + 1 or not set(numbers) <= epochs:
        known = ",".join(map(str, sorted(epochs)))
        raise ConfigError(f"--success {option}: give all, none, or epochs out of {known}")
    return set(numbers)


class Dataset:
    """The data set in `folder`, which grows by episodes until `finish`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fps: int | None = None
        self._info: Info | None = None
        self._rows: list[EpisodeRow] = []
        self._tables: list[Columns] = []
        self._tasks: list[str] = []
        self._frames = 0

    @classmethod
    def open(cls, folder: Path) -> Dataset:
        """Read a data set that this module wrote. Raises ConfigError for another one."""
        from pyarrow import parquet

        found, meta = cls(folder), folder / "meta"
        try:
            found._info = json.loads((meta / "info.json").read_text(encoding="utf-8"))
            assert found._info is not None
            found.fps = found._info["fps"]
            found._info["v2a"]["recordings"]
            found._rows = parquet.read_table(meta / EPISODES_PATH).to_pylist()
            found._tasks = parquet.read_table(meta / "tasks.parquet")["task"].to_pylist()
            for index in range(len(found._rows)):
                table = parquet.read_table(folder / DATA_PATH.format(**_file(index)))
                found._tables.append(
                    {name: np.array(table[name].to_pylist()) for name in table.column_names}
                )
            found._frames = sum(len(table["index"]) for table in found._tables)
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError(
                f"no data set that v2a can append to ({type(error).__name__}: {error}); export to "
                "a new folder"
            ) from error
        return found

    @property
    def episodes(self) -> int:
        return len(self._rows)

    def said(self) -> str:
        """The data set in a line."""
        return f"{self.episodes} episodes, {self._frames} rows at {self.fps} Hz"

    def begin(self, recording: Recording, info: Info) -> None:
        """Note a recording. Raises ConfigError if its rows are not like those before."""
        if self._info is None:
            self._info, self.fps = info, info["fps"]
            return
        for what in ("fps", "features", "robot_type"):
            if self._info[what] != info[what]:
                raise ConfigError(
                    f"{recording.path}: its {what} differ from those before; export it to a "
                    "folder of its own"
                )
        self._info["v2a"]["recordings"] += info["v2a"]["recordings"]

    def add(
        self, episode: Episode, sample: npt.NDArray[np.uint8], fps: int, success: bool | None
    ) -> None:
        """Write the table of an episode, whose video is written; `sample` is of its pictures."""
        if episode.task not in self._tasks:
            self._tasks.append(episode.task)
        index = self.episodes
        table = _table(episode, index, self._frames, self._tasks.index(episode.task), fps)
        if success is not None:
            marks = np.zeros(len(episode.t_ns), bool)
            marks[-1] = success
            table[SUCCESS] = marks
        _write_table(self.folder / DATA_PATH.format(**_file(index)), table)
        row = _episode_row(episode, table, fps)
        self._rows.append(row | _flat(_stats(table) | {PICTURE: _picture_stats(sample)}))
        self._tables.append(table)
        self._frames += len(episode.t_ns)

    def finish(self) -> None:
        """Write what describes the data set."""
        assert self._info is not None, "a data set has a recording"
        meta, rows = self.folder / "meta", self._rows
        whole = {
            name: np.concatenate([table[name] for table in self._tables])
            for name in self._tables[0]
        }
        _write_table(meta / EPISODES_PATH, {name: [row[name] for row in rows] for name in rows[0]})
        _write_tasks(meta / "tasks.parquet", self._tasks)
        _write_json(meta / "stats.json", _stats(whole) | {PICTURE: _pooled(rows)})
        self._info["total_episodes"] = len(rows)
        self._info["total_frames"] = self._frames
        self._info["total_tasks"] = len(self._tasks)
        self._info["splits"] = {"train": f"0:{len(rows)}"}
        _write_json(meta / "info.json", self._info)


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


def _write_video(
    path: Path, pictures: Iterator[Image], fps: int, bar: Bar
) -> npt.NDArray[np.uint8]:
    """Write the video; return some of its pictures, thinned, uint8 [n, h, w, 3]."""
    kept: list[Image] = []
    every = 1
    with mp4(path, fps) as write:
        for index, picture in enumerate(pictures):
            write(picture)
            bar.advance(1)
            thin = max(round(max(picture.shape[:2]) / STATS_SIDE), 1)
            if index % every == 0:
                kept.append(picture[::thin, ::thin])
            if len(kept) > STATS_PICTURES:
                kept, every = kept[::2], every * 2
    return np.stack(kept)


def _table(episode: Episode, index: int, before: int, task_index: int, fps: int) -> Columns:
    """The columns of an episode: one row per time. `before` rows are in front of it."""
    rows = np.arange(len(episode.t_ns))
    return {
        "observation.state": episode.position_rad.astype(np.float32),
        "action": episode.command_rad.astype(np.float32),
        "timestamp": (rows / fps).astype(np.float32),
        "frame_index": rows,
        "episode_index": np.full(len(rows), index),
        "index": before + rows,
        "task_index": np.full(len(rows), task_index),
    }


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


def _stats(table: Columns) -> Stats:
    """The statistics by which training scales, of each column."""
    return {
        name: _spread(column.reshape(len(column), -1).astype(np.float64, copy=False))
        for name, column in table.items()
    }


def _picture_stats(pictures: npt.NDArray[np.uint8]) -> Mapping[str, Stat]:
    """Statistics by channel of pictures, uint8 [n, h, w, 3], as values from 0 to 1."""
    channels = _spread(pictures.reshape(-1, 3) / 255.0) | {"count": [len(pictures)]}
    return {
        name: values if name == "count" else [[[value]] for value in values]
        for name, values in channels.items()
    }


def _pooled(rows: Sequence[EpisodeRow]) -> Mapping[str, Stat]:
    """The pictures' statistics over all episodes, as lerobot's `aggregate_stats` pools them."""
    stats = {
        name: np.array([row[f"stats/{PICTURE}/{name}"] for row in rows], np.float64)
        for name in ("min", "max", "mean", "std", "count", *QUANTILES)
    }
    weights = stats["count"].reshape(-1, 1, 1, 1) / stats["count"].sum()
    mean = (weights * stats["mean"]).sum(axis=0)
    spread = stats["std"] ** 2 + (stats["mean"] - mean) ** 2
    return {
        "min": stats["min"].min(axis=0).tolist(),
        "max": stats["max"].max(axis=0).tolist(),
        "mean": mean.tolist(),
        "std": np.sqrt((weights * spread).sum(axis=0)).tolist(),
        **{name: (weights * stats[name]).sum(axis=0).tolist() for name in QUANTILES},
        "count": [int(stats["count"].sum())],
    }


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


def _info(recording: Recording, fps: int, marked: bool) -> Info:
    """The description of a data set of this recording alone, still without its counts."""
    header = recording.header
    started = None if header.start_utc_ns is None else utc_text(header.start_utc_ns)
    run = {"path": str(recording.path), "started_utc": started, "dry_run": header.dry_run}
    return {
        "codebase_version": "v3.0",
        "robot_type": header.config.robot.name,
        "total_episodes": 0,
        "total_frames": 0,
        "total_tasks": 0,
        "chunks_size": FILES_A_CHUNK,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": fps,
        "splits": {},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH,
        "features": _features(recording, fps, marked),
        "v2a": {"recordings": [run]},
    }


def _features(recording: Recording, fps: int, marked: bool) -> dict[str, Feature]:
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
    success: Feature = {"dtype": "bool", "shape": [1], "names": None}
    return {
        "observation.state": joints,
        "action": joints,
        PICTURE: video,
        "timestamp": {"dtype": "float32", "shape": [1], "names": None},
        **{name: {"dtype": "int64", "shape": [1], "names": None} for name in counters},
        **({SUCCESS: success} if marked else {}),
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
    with replacing(path) as beside:
        parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(metadata), beside)


def _arrow(column: Any) -> Any:
    """A column for Arrow; [n, d] becomes lists of fixed length, like lerobot's own tables."""
    import pyarrow

    if isinstance(column, np.ndarray) and column.ndim == 2:
        flat = pyarrow.array(column.ravel())
        return pyarrow.FixedSizeListArray.from_arrays(flat, column.shape[1])
    return pyarrow.array(column)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, json.dumps(content, indent=4) + "\n")
