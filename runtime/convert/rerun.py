"""Exports a recording as rerun's .rrd: pictures, joints, ages, stage times, safety in one view.

    /camera                       the pictures
    /joints/NAME/position_rad     measured; also command_rad, and target_rad of the newest chunk
    /age_ms/condition_age         of each chunk
    /stage_ms/STAGE               how long each call took; /gpu_ms/STAGE: its part on the GPU
    /safety, /log                 as text
    /configuration                the header of the recording

It needs rerun-sdk, the extra [rerun]. Times are seconds since the start of the run.
"""

from __future__ import annotations

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
from v2a.names import STAGES
from v2a.spans import GPU

FILE: Final = "run.rrd"
PICTURES: Final = 64  # per batch

Columns = tuple[str, Sequence[int] | npt.NDArray[np.int64], Any]
"""An entity, the times of its rows (int64 [n], ns) and rerun's columns."""


def export(recording: Recording, folder: Path) -> None:
    """Write `run.rrd` into the new `folder`.

    Raises ConfigError if the folder exists, and ModuleNotFoundError if rerun-sdk or OpenCV is not
    installed.
    """
    import rerun  # fail before writing if the extra [rerun] is missing

    new_folder(folder, "export")
    # Copies of a recording get the same id.
    stream = rerun.RecordingStream("v2a", recording_id=f"v2a-{recording.t0_ns}")
    stream.save(folder / FILE)
    stream.send_recording_name(recording.path.parent.name)
    header = rerun.TextDocument(to_json(recording.header, indent=1))
    stream.log("configuration", header, static=True)
    for entity, times_ns, columns in chain(
        _pictures(recording), _joints(recording), _times(recording), _texts(recording)
    ):
        if not len(times_ns):
            continue
        since = (np.asarray(times_ns, np.int64) - recording.t0_ns).astype("timedelta64[ns]")
        time = rerun.TimeColumn("time", duration=since)
        stream.send_columns(entity, [time], columns)
    stream.disconnect()  # writes the rest


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
        where = f"joints/{joint.name}"
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
    chunks = list(recording.chunks())
    ages_ms = [chunk.condition_age_ns / 1e6 for chunk in chunks]
    yield _scalars("age_ms/condition_age", [chunk.t_publish_ns for chunk in chunks], ages_ms)
    for thread, rows in recording.spans().items():
        kind = "gpu_ms" if thread.startswith(GPU) else "stage_ms"
        for stage in np.unique(rows[:, 0]):
            _, start_ns, end_ns, _ = rows[rows[:, 0] == stage].T
            yield _scalars(f"{kind}/{STAGES[stage]}", end_ns, (end_ns - start_ns) / 1e6)


def _texts(recording: Recording) -> Iterator[Columns]:
    changes, lines = recording.safety(), recording.log()
    said = [f"{change.state}: {change.reason}" for change in changes]
    yield _text("safety", [change.t_ns for change in changes], said)
    yield _text("log", [line.t_ns for line in lines], [line.text for line in lines])


def _scalars(entity: str, times_ns: Any, values: Any) -> Columns:
    import rerun

    return entity, times_ns, rerun.Scalars.columns(scalars=np.asarray(values, np.float64))


def _text(entity: str, times_ns: list[int], texts: list[str]) -> Columns:
    import rerun

    return entity, times_ns, rerun.TextLog.columns(text=texts)
