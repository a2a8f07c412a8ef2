"""Exports a recording as rerun's .rrd: pictures, joints, ages, stage times, safety in one view.

    /camera                       the pictures
    /joints/NAME/position_rad     measured; also command_rad, and target_rad of the newest chunk
    /age_ms/condition_age         of each chunk
    /stage_ms/STAGE               how long each call took; /gpu_ms/STAGE: its part on the GPU
    /safety, /log                 as text
    /configuration                the header of the recording

It needs rerun-sdk, the extra [rerun]. The timeline `time` is the time since the
start of the run, and `utc` the date and time.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from runtime.mailbox import ChunkMsg
from runtime.recording.messages import to_json, to_png
from runtime.recording.reader import Recording
from v2a.files import new_folder
from v2a.spans import GPU

FILE: Final = "run.rrd"
PICTURES: Final = 64  # per batch
PIPE_BYTES: Final = 1 << 20

Columns = tuple[str, Sequence[int] | npt.NDArray[np.int64], Any]
"""An entity, the times of its rows (int64 [n], ns) and rerun's columns."""


def export(recordings: Sequence[Recording], folder: Path) -> None:
    """Write `run.rrd` of the only one of `recordings` into the new `folder`.

    Raises ConfigError if the folder exists or the disk refuses, and ModuleNotFoundError if
    rerun-sdk or OpenCV is not installed.
    """

    (recording,) = recordings
    with new_folder(folder, "export") as beside:
        _write(recording, beside / FILE)


def _write(recording: Recording, path: Path) -> None:
    import rerun

    # Copies of a recording get the same id.
    stream = rerun.RecordingStream("v2a", recording_id=f"v2a-{recording.t0_ns}")
    pipe = _Pipe(path)
    stream.save(pipe.path)
    stream.send_recording_name(recording.path.parent.name)
    start_ns, start_utc_ns = recording.t0_ns, recording.header.log_ns(recording.t0_ns)
    stream.send_recording_start_time_nanos(start_utc_ns)
    header = rerun.TextDocument(to_json(recording.header, indent=1))
    stream.log("configuration", header, static=True)
    for entity, times_ns, columns in chain(
        _pictures(recording), _joints(recording), _times(recording), _texts(recording)
    ):
        if not len(times_ns):
            continue
        since_ns = np.asarray(times_ns, np.int64) - start_ns
        times = [
            rerun.TimeColumn("time", duration=since_ns.astype("timedelta64[ns]")),
            rerun.TimeColumn("utc", timestamp=(since_ns + start_utc_ns).astype("datetime64[ns]")),
        ]
        stream.send_columns(entity, times, columns)
        if pipe.error:
            break
    stream.disconnect()  # writes the rest
    pipe.close()


class _Pipe(threading.Thread):
    """Writes to a file what the SDK writes to the named pipe `path`.

    On a full disk the SDK itself waits for ever or says nothing.
    """

    def __init__(self, file: Path) -> None:
        super().__init__(name="rrd", daemon=True)
        self.path = file.with_suffix(".pipe")
        self.error: OSError | None = None
        self._file = file
        os.mkfifo(self.path)
        self.start()

    def run(self) -> None:
        """Copy until the SDK closes the pipe; after an error, throw the rest away."""
        with self.path.open("rb", buffering=0) as source:
            try:
                with self._file.open("wb") as target:
                    shutil.copyfileobj(source, target, PIPE_BYTES)
            except OSError as error:
                self.error = error
            while source.read(PIPE_BYTES):
                pass

    def close(self) -> None:
        """Wait for the end. Raises OSError if the file is not whole."""
        self.join()
        self.path.unlink()
        if self.error:
            raise self.error


def _pictures(recording: Recording) -> Iterator[Columns]:
    import rerun

    frames = recording.frames()
    while batch := list(islice(frames, PICTURES)):
        pngs = [to_png(frame.image) for frame in batch]
        columns = rerun.EncodedImage.columns(blob=pngs, media_type=["image/png"] * len(pngs))
        yield "camera", [frame.t_capture_ns for frame in batch], columns


def _joints(recording: Recording) -> Iterator[Columns]:
    states, chunks = list(recording.states()), list(recording.chunks())
    joints = recording.header.config.robot.joints
    for index, joint in enumerate(joints):
        where = f"joints/{_part(joint.name)}"
        at_ns = [state.t_capture_ns for state in states]
        yield _scalars(f"{where}/position_rad", at_ns, [s.position_rad[index] for s in states])
        yield _scalars(f"{where}/command_rad", at_ns, [s.command_rad[index] for s in states])
        yield _scalars(f"{where}/target_rad", *newest_targets(chunks, index))


def newest_targets(chunks: Sequence[ChunkMsg], joint: int) -> tuple[list[int], list[float]]:
    """Times in ns and targets in rad of one joint, from each chunk until the next one starts."""
    ends_ns = [*(chunk.t_capture_ns for chunk in chunks[1:]), 1 << 62]
    rows = [
        (chunk.t_capture_ns + k * chunk.step_ns, float(row[joint]))
        for chunk, end_ns in zip(chunks, ends_ns, strict=False)
        for k, row in enumerate(chunk.target_rad)
        if chunk.t_capture_ns + k * chunk.step_ns < end_ns
    ]
    return [t_ns for t_ns, _ in rows], [value for _, value in rows]


def _times(recording: Recording) -> Iterator[Columns]:
    chunks, stages = list(recording.chunks()), recording.header.stages
    ages_ms = [chunk.condition_age_ns / 1e6 for chunk in chunks]
    yield _scalars("age_ms/condition_age", [chunk.t_publish_ns for chunk in chunks], ages_ms)
    for thread, rows in recording.spans().items():
        kind = "gpu_ms" if thread.startswith(GPU) else "stage_ms"
        for stage in np.unique(rows[:, 0]):
            _, start_ns, end_ns, _ = rows[rows[:, 0] == stage].T
            yield _scalars(f"{kind}/{_part(stages[stage])}", end_ns, (end_ns - start_ns) / 1e6)


def _texts(recording: Recording) -> Iterator[Columns]:
    changes, lines = recording.safety(), recording.log()
    said = [f"{change.state}: {change.reason}" for change in changes]
    yield _text("safety", [change.t_ns for change in changes], said)
    yield _text("log", [line.t_ns for line in lines], [line.text for line in lines])


def _part(name: str) -> str:
    """A name as one part of an entity's path: a slash in it begins no further part."""
    import rerun

    return rerun.escape_entity_path_part(name)


def _scalars(entity: str, times_ns: Any, values: Any) -> Columns:
    import rerun

    return entity, times_ns, rerun.Scalars.columns(scalars=np.asarray(values, np.float64))


def _text(entity: str, times_ns: list[int], texts: list[str]) -> Columns:
    import rerun

    return entity, times_ns, rerun.TextLog.columns(text=texts)
