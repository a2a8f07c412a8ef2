"""A recording read back by those whose formats it was exported to: lerobot and rerun themselves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from runtime.convert.rows import read_rows
from runtime.lockstep import CallbackCamera
from runtime.mailbox import ChunkMsg
from runtime.recording.messages import from_png
from runtime.recording.reader import Recording
from tests.runtime.conftest import SIZE, TASK, World, after_ms, write_tiny_bundle
from v2a.bundle import load_bundle
from v2a.cli import cli
from v2a.errors import ConfigError

SECONDS = 3.0


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes in which both joints rise, seen by a camera that a picture of one colour each
    tells the time."""
    folder = tmp_path_factory.mktemp("export")
    path = write_tiny_bundle(folder / "bundle", lambda graph, file: file.write_bytes(b"fake"))
    delays = {"camera": after_ms(4), "system1": after_ms(30), "system2": after_ms(90)}
    world = World(load_bundle(path), delays=delays, record_dir=folder / "run")

    def picture() -> np.ndarray:
        t_s = world.clock.now_ns() / 1e9
        grey = np.full((SIZE, SIZE, 3), round(30 * t_s), np.uint8)
        grey[: SIZE // 2, :, 0] = 200  # red above: rows and channels can't be mixed up unseen
        return grey

    world.workers.camera._camera = CallbackCamera(picture, world.clock)
    with world.lockstep as lockstep:
        for _ in range(2):
            lockstep.arm()
            lockstep.run(SECONDS)
            lockstep.reset()
    return folder / "run"


def export(run: Path, to: str, folder: Path) -> Any:
    return CliRunner().invoke(cli, ["record", "export", str(run), "--to", to, str(folder)])


def exported(run: Path, to: str, folder: Path) -> Path:
    done = export(run, to, folder)
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize(
    ("to", "needed"), [("lerobot", "av"), ("lerobot", "pyarrow"), ("rrd", "rerun")]
)
def test_without_its_packages_an_export_says_what_to_install(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, needed: str
) -> None:
    if to == "lerobot" and needed == "pyarrow":
        pytest.importorskip("av")
    monkeypatch.setitem(__import__("sys").modules, needed, None)
    done = export(run, to, tmp_path / "new")
    extra = {"lerobot": "lerobot", "rrd": "rerun"}[to]
    assert done.exit_code == 1
    assert f"{needed} is not installed; run: " in done.stderr
    assert f"[{extra}]" in done.stderr
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(("to", "needed"), [("lerobot", "av"), ("rrd", "rerun")])
def test_a_folder_that_exists_is_not_touched(
    run: Path, tmp_path: Path, to: str, needed: str
) -> None:
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    done = export(run, to, tmp_path)
    assert done.exit_code == ConfigError.exit_code
    assert "can't export there: File exists; name a new folder" in done.stderr
    assert not list(tmp_path.iterdir())


@pytest.fixture(scope="module")
def dataset(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The export, read by lerobot's own loader."""
    lerobot = pytest.importorskip(
        "lerobot.datasets.lerobot_dataset",
        reason="lerobot is not installed: it reads the export back (docs/replay.md)",
    )
    folder = exported(run, "lerobot", tmp_path_factory.mktemp("lerobot") / "new")
    return lerobot.LeRobotDataset("v2a/test", root=folder)


def test_lerobot_reads_shape_rate_task_and_rows(run: Path, dataset: Any) -> None:
    fps, episodes = read_rows(Recording(run))
    assert dataset.fps == fps == 20
    assert dataset.num_episodes == len(episodes) == 2
    assert len(dataset) == sum(len(episode.t_ns) for episode in episodes)
    assert dataset.meta.robot_type == "two"
    assert dataset.features["observation.state"]["names"] == ["base", "tip"]
    states = np.concatenate([episode.position_rad for episode in episodes])
    commands = np.concatenate([episode.command_rad for episode in episodes])
    items = [dataset[index] for index in range(len(dataset))]
    np.testing.assert_array_equal([i["observation.state"] for i in items], states.astype("f4"))
    np.testing.assert_array_equal([i["action"] for i in items], commands.astype("f4"))
    assert np.ptp(commands, axis=0).min() > 0.3  # they did rise
    assert {item["task"] for item in items} == {TASK}
    second = len(episodes[0].t_ns)
    assert [int(i["episode_index"]) for i in items] == [0] * second + [1] * (len(items) - second)
    times_s = np.array([float(item["timestamp"]) for item in items])
    frame = np.array([int(item["frame_index"]) for item in items])
    np.testing.assert_allclose(times_s, frame / fps, atol=1e-6)


def test_lerobot_decodes_the_picture_of_each_row(run: Path, dataset: Any) -> None:
    """Each within what h264 costs: the pictures differ by 1.5 levels a row."""
    _, episodes = read_rows(Recording(run))
    pictures = {frame.seq: frame.image for frame in Recording(run).frames()}
    seqs = np.concatenate([episode.frame_seq for episode in episodes])
    off = []
    for index, seq in enumerate(seqs.tolist()):
        decoded = dataset[index]["observation.images.camera"].numpy().transpose(1, 2, 0) * 255
        off.append(float(np.abs(decoded - pictures[seq]).mean()))
    assert max(off) < 4.0
    assert np.mean(off) < 2.0


def test_lerobot_has_the_statistics_that_training_scales_by(dataset: Any) -> None:
    states = np.array([dataset[i]["observation.state"].numpy() for i in range(len(dataset))])
    stats = dataset.meta.stats
    np.testing.assert_allclose(stats["observation.state"]["mean"], states.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(
        stats["observation.state"]["q99"].max(), np.quantile(states, 0.99, axis=0).max(), rtol=1e-5
    )
    assert stats["observation.images.camera"]["mean"].shape == (3, 1, 1)
    assert stats["observation.images.camera"]["max"][0, 0, 0] == pytest.approx(200 / 255)


def test_lerobot_gives_chunks_of_actions_to_train_on(run: Path, dataset: Any) -> None:
    """What a policy with chunks asks for: the actions of the next steps, padded at the end."""
    steps = [k / dataset.fps for k in range(4)]
    chunked = type(dataset)("v2a/test", root=dataset.root, delta_timestamps={"action": steps})
    rows = [chunked[index]["action"][0].numpy() for index in range(4)]
    np.testing.assert_array_equal(chunked[0]["action"].numpy(), rows)
    assert chunked[len(chunked) - 1]["action_is_pad"].tolist() == [False, True, True, True]


def test_reruns_reader_of_lerobot_datasets_reads_it_too(run: Path, tmp_path: Path) -> None:
    """A second reader of the format, by other people and without torch."""
    pytest.importorskip("av", reason="PyAV is not installed: it writes the videos")
    reader = pytest.importorskip("rerun.experimental", reason="rerun-sdk is not installed")
    read = reader.LeRobotReader(exported(run, "lerobot", tmp_path / "new"))
    _, episodes = read_rows(Recording(run))
    assert read.version == "v3"
    assert read.episodes() == [0, 1]
    for index, episode in enumerate(episodes):
        found = by_entity(read.stream(index).to_chunks())
        actions = rows(found, "/action", "Scalars:scalars")
        np.testing.assert_array_equal(actions, episode.command_rad.astype("f4"))
        assert set(column(found, "/task", "TextDocument:text")) == {TASK}
        pictures = column(found, "/observation.images.camera", "VideoStream:sample")
        assert len(pictures) == len(episode.t_ns)


def by_entity(chunks: Iterable[Any]) -> dict[str, list[Any]]:
    """rerun's chunks of rows, as Arrow batches."""
    found: dict[str, list[Any]] = {}
    for chunk in chunks:
        found.setdefault(chunk.entity_path, []).append(chunk.to_record_batch())
    return found


@pytest.fixture(scope="module")
def tables(run: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[Any]]:
    """The chunks that rerun's own reader finds in the export: by entity, as Arrow batches."""
    reader = pytest.importorskip(
        "rerun.chunk", reason="rerun-sdk is not installed: it reads the export back"
    )
    folder = exported(run, "rrd", tmp_path_factory.mktemp("rrd") / "new")
    return by_entity(reader.RrdReader(folder / "run.rrd").stream().to_chunks())


def rows(tables: dict[str, list[Any]], entity: str, component: str) -> list[Any]:
    """An entity has batches of several kinds."""
    batches = [batch for batch in tables[entity] if component in batch.schema.names]
    return [row for batch in batches for row in batch.column(component).to_pylist()]


def column(tables: dict[str, list[Any]], entity: str, component: str) -> list[Any]:
    return [row[0] for row in rows(tables, entity, component)]


def times_ns(tables: dict[str, list[Any]], entity: str) -> list[int]:
    return [
        int(t) for batch in tables[entity] for t in batch.column("time").cast("int64").to_pylist()
    ]


def test_rerun_reads_the_pictures_losslessly_at_their_times(
    run: Path, tables: dict[str, list[Any]]
) -> None:
    recording = Recording(run)
    frames = list(recording.frames())
    at = [frame.t_capture_ns - recording.t0_ns for frame in frames]
    assert times_ns(tables, "/camera") == at
    for frame, png in zip(frames, column(tables, "/camera", "EncodedImage:blob"), strict=True):
        np.testing.assert_array_equal(from_png(bytes(png)), frame.image)


def test_rerun_reads_joints_ages_stages_and_safety(run: Path, tables: dict[str, list[Any]]) -> None:
    recording = Recording(run)
    states, chunks = list(recording.states()), list(recording.chunks())
    for index, joint in enumerate(("base", "tip")):
        for what in ("position_rad", "command_rad"):
            read = column(tables, f"/joints/{joint}/{what}", "Scalars:scalars")
            assert read == [getattr(state, what)[index] for state in states]
        target = dict(
            zip(
                times_ns(tables, f"/joints/{joint}/target_rad"),
                column(tables, f"/joints/{joint}/target_rad", "Scalars:scalars"),
                strict=True,
            )
        )
        assert_is_the_newest_target(chunks, index, target, recording.t0_ns)
    ages = column(tables, "/age_ms/condition_age", "Scalars:scalars")
    assert ages == [chunk.condition_age_ns / 1e6 for chunk in chunks]
    assert len(column(tables, "/stage_ms/denoise", "Scalars:scalars")) == len(chunks)
    said = column(tables, "/safety", "TextLog:text")
    assert said == [f"{change.state}: {change.reason}" for change in recording.safety()]
    (header,) = column(tables, "/configuration", "TextDocument:text")
    assert json.loads(header)["policy"] == "tiny"


def assert_is_the_newest_target(
    chunks: list[ChunkMsg], joint: int, target: dict[int, float], t0_ns: int
) -> None:
    for t_ns, value in target.items():
        began = [chunk for chunk in chunks if chunk.t_capture_ns <= t_ns + t0_ns]
        step = (t_ns + t0_ns - began[-1].t_capture_ns) / began[-1].step_ns
        assert value == began[-1].target_rad[round(step), joint]
    assert len(target) >= len(chunks)


def test_runs_become_one_data_set_in_one_go_or_one_after_the_other(
    run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("av", reason="PyAV is not installed")
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    to = ["--to", "lerobot", "--fps", "10", "--success"]
    both = ["record", "export", str(run), str(run), *to, "none", "-o", str(tmp_path / "both")]
    assert CliRunner().invoke(cli, both).exit_code == 0
    one = ["record", "export", str(run), *to]
    grown = ["-o", str(tmp_path / "grown")]
    assert CliRunner().invoke(cli, [*one, "none", *grown]).exit_code == 0
    assert CliRunner().invoke(cli, [*one, "0", "--append", *grown]).exit_code == 0
    infos = [
        json.loads((tmp_path / name / "meta/info.json").read_text()) for name in ("both", "grown")
    ]
    assert infos[0] == infos[1]
    assert (infos[0]["total_episodes"], infos[0]["fps"]) == (4, 10)
    assert infos[0]["v2a"]["recordings"][0]["started_utc"].startswith("1970")
    episodes = [
        parquet.read_table(tmp_path / name / "data/chunk-000" / f"file-{index:03d}.parquet")
        for name in ("both", "grown")
        for index in range(4)
    ]
    for first, second in zip(episodes[:4], episodes[4:], strict=True):
        dropped = [table.drop_columns(["next.success"]) for table in (first, second)]
        assert dropped[0] == dropped[1]
    marks = [table["next.success"].to_pylist() for table in episodes]
    assert [sum(each) for each in marks] == [0, 0, 0, 0, 0, 0, 1, 0]
    assert marks[6][-1]
    again = CliRunner().invoke(
        cli, ["record", "export", str(run), "--to", "lerobot", "--append", *grown]
    )
    assert again.exit_code == 2  # no marks, and so another data set
    assert len(again.stderr.splitlines()[-1:]) == 1
    assert json.loads((tmp_path / "grown/meta/info.json").read_text()) == infos[1]
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


FULL = """
import resource, signal, sys
from v2a.cli import cli
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
cli(sys.argv[2:])
"""


@pytest.mark.parametrize("limit", [300, 3000])
@pytest.mark.parametrize(
    ("to", "needed"), [("lerobot", "av"), ("rrd", "rerun"), ("perfetto", "perfetto")]
)
def test_a_disk_without_room_leaves_nothing_and_a_retry_works(
    run: Path, tmp_path: Path, to: str, needed: str, limit: int
) -> None:
    """A limit on the size of files stands for the full disk: both fail the same writes."""
    pytest.importorskip(needed, reason=f"{needed} is not installed")
    command = ["record", "export", str(run), "--to", to, str(tmp_path / "new")]
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(limit), *command],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr, done.stderr
    assert "can't export there" in done.stderr
    assert list(tmp_path.iterdir()) == []
    assert CliRunner().invoke(cli, command).exit_code == 0
