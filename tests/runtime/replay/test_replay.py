"""A recording made again: to the bit, and where two bundles part."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from runtime.engines import load
from runtime.lockstep import CallbackCamera
from runtime.mailbox import ChunkMsg, ConditionMsg, FrameMsg, StateMsg
from runtime.recording.reader import Recording
from runtime.replay.compare import Call, Comparison, max_abs_difference
from runtime.replay.replay import Replay
from runtime.replay.result import ReplayResult
from runtime.replay.script import read_script
from tests.runtime.conftest import SIZE, World, after_ms, run_config, write_tiny_bundle
from tests.runtime.onnx_files import write_mixed
from v2a.bundle import FileRef, GraphSpec, load_bundle, seal
from v2a.cli import cli
from v2a.errors import BundleError, ConfigError

OTHER = "push it back"
SYSTEM2 = ("vae_spatial", "vae_motion", "vdm_spatial", "vdm_motion", "condition")
SYSTEM1 = ("frame_encode", "observe", "denoise")


def changed(name: str | None) -> Callable[[GraphSpec, Path], None]:
    """Writes graphs of which `name` is another one."""
    return lambda graph, path: write_mixed(graph, path, offset=0.25 if graph.name == name else 0.0)


def two_tasks(path: Path, write_graph: Callable[[GraphSpec, Path], None]) -> Path:
    """A tiny bundle that also knows OTHER."""
    manifest = load_bundle(write_tiny_bundle(path, write_graph)).manifest
    np.save(path / "embeddings" / "other.npy", np.ones((1, 2, 3), np.float32))
    files = {**manifest.instructions, OTHER: FileRef(file="embeddings/other.npy", sha256="")}
    seal(path, manifest.model_copy(update={"instructions": files}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with `bundle/` and a recording of it in `run/`.

    The recording has two epochs with an instruction each, late workers, pictures of noise and a
    condition that grows too old for the normal speed.
    """
    folder = tmp_path_factory.mktemp("replay")
    bundle = load_bundle(two_tasks(folder / "bundle", changed(None)))
    delays = {
        "camera": after_ms(7),
        "system1": after_ms(130),
        "system2": lambda rng: int(rng.uniform(150e6, 700e6)),
    }
    world = World(
        bundle,
        run_config(system2={"soft_age_s": 0.6, "hard_age_s": 1.0}),
        delays,
        load,
        folder / "run",
        seed=3,
    )
    random = np.random.default_rng(0)
    world.workers.camera._camera = CallbackCamera(
        lambda: random.integers(0, 256, (SIZE, SIZE, 3), np.uint8), world.clock
    )
    with world.lockstep as lockstep:
        for _ in range(2):
            lockstep.arm()
            lockstep.run(4.0)
            lockstep.reset(OTHER)
        lockstep.run(0.5)
    return folder


def replayed(recording: Recording, bundle: Path, against: Path | None = None) -> ReplayResult:
    script = read_script(recording)
    other = None if against is None else load_bundle(against)
    with Replay(script, load_bundle(bundle), other) as replay:
        for step, frame in script.with_frames():
            replay.play(step, frame)
    return replay.result()


def test_the_replay_is_what_was_recorded_to_the_bit(made: Path) -> None:
    recording = Recording(made / "run")
    chunks = list(recording.chunks())
    result = replayed(recording, made / "bundle")
    assert result.first_divergence is None
    assert result.digest == result.other_digest
    assert result.chunks == len(chunks) > 20
    assert result.conditions == len(list(recording.conditions())) > 8
    assert result.left_out == {}
    # What made it worth asking: both epochs, both speeds, and no chunk like another.
    assert {chunk.epoch for chunk in chunks} == {0, 1}
    assert len({chunk.step_ns for chunk in chunks}) == 2
    assert len({chunk.target_rad.tobytes() for chunk in chunks}) == len(chunks)


def test_twice_gives_the_same_digest_and_a_bundle_equals_itself(made: Path) -> None:
    recording, bundle = Recording(made / "run"), made / "bundle"
    first, beside = replayed(recording, bundle), replayed(recording, bundle, bundle)
    assert first.digest == replayed(recording, bundle).digest == beside.digest
    assert beside.first_divergence is None
    assert beside.digest == beside.other_digest
    assert set(beside.differences) == {"instruction", *SYSTEM2, *SYSTEM1}


@pytest.mark.parametrize("stage", ["instruction", *SYSTEM2, *SYSTEM1])
def test_two_bundles_part_at_the_graph_that_was_changed(
    made: Path, tmp_path: Path, stage: str
) -> None:
    other = two_tasks(tmp_path / "other", changed(stage))
    result = replayed(Recording(made / "run"), made / "bundle", other)
    first = result.first_divergence
    assert first is not None
    assert (first.stage, first.call) == (stage, 1)
    assert first.max_abs_difference == pytest.approx(0.25, rel=1e-3)
    steps = read_script(Recording(made / "run")).steps
    kind = ChunkMsg if stage in SYSTEM1 else object
    step = next(step for step in steps if isinstance(step, kind))
    t0_ns = Recording(made / "run").t0_ns
    assert first.t_s == (step.t_publish_ns - t0_ns) / 1e9
    assert first.frame_seq == step.parent_seq
    assert result.digest != result.other_digest
    before = SYSTEM2[: SYSTEM2.index(stage)] if stage in SYSTEM2 else ()
    assert all(result.differences[name].differing == 0 for name in before)


def test_a_changed_bundle_parts_from_the_recorded_chunks(made: Path, tmp_path: Path) -> None:
    other = two_tasks(tmp_path / "other", changed("denoise"))
    first = replayed(Recording(made / "run"), other).first_divergence
    assert first is not None
    assert (first.stage, first.tensor, first.call) == ("denoise", "chunk_rad", 1)
    assert first.max_abs_difference == pytest.approx(0.25, rel=1e-3)


class Lossy(Recording):
    """A recording without some of its messages."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.lost: dict[type, set[int]] = {}

    def _rows(self, kind: type) -> Iterator[dict[str, Any]]:
        lost = self.lost.get(kind, set())
        return (row for row in super()._rows(kind) if row.get("seq") not in lost)


@given(
    st.data(),
    st.sampled_from([FrameMsg, StateMsg, ConditionMsg, ChunkMsg]),
    st.integers(0, 2**32 - 1),
)
@settings(max_examples=25, deadline=None)
def test_whatever_was_lost_the_rest_stays_equal(
    made: Path, data: st.DataObject, kind: type, seed: int
) -> None:
    recording = Lossy(made / "run")
    chunks = list(recording.chunks())
    # Without the first of an epoch nobody can tell how many there were before the next.
    first = {epoch: next(c.seq for c in chunks if c.epoch == epoch) for epoch in (0, 1)}
    there = [row["seq"] for row in recording._rows(kind)]
    share = data.draw(st.floats(0.01, 0.5))
    random = np.random.default_rng(seed)
    lost = set(random.choice(there, round(share * len(there)), replace=False).tolist())
    recording.lost = {kind: lost - set(first.values()) if kind is ChunkMsg else lost}
    left = list(recording.chunks())
    try:
        result = replayed(recording, made / "bundle")
    except ConfigError as error:
        if "nothing to replay" not in str(error):
            raise
        reject()
    assert result.first_divergence is None
    out = sum(n for why, n in result.left_out.items() if why.startswith("chunks"))
    assert result.chunks + out == len(left)


def test_nothing_to_replay_is_one_clear_line(made: Path) -> None:
    recording = Lossy(made / "run")
    recording.lost = {ChunkMsg: {chunk.seq for chunk in Recording(made / "run").chunks()}}
    with pytest.raises(ConfigError, match=r"nothing to replay: it has no chunk; record a longer"):
        read_script(recording)


def invoke(*arguments: object) -> Any:
    return CliRunner().invoke(cli, ["replay", *map(str, arguments)])


def test_the_command_prints_digest_and_divergence(made: Path, tmp_path: Path) -> None:
    done = invoke(made / "run", "--bundle", made / "bundle", "--json")
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert len(result["digest"]) == 64
    assert result["first_divergence"] is None
    text = invoke(made / "run" / "run.mcap", "--bundle", made / "bundle").stdout
    assert result["digest"] in text
    assert "equal to the recorded chunks, to the bit" in text
    other = two_tasks(tmp_path / "other", changed("vdm_motion"))
    text = invoke(made / "run", "--bundle", made / "bundle", "--against", other).stdout
    assert f"first differs from {other} at " in text
    assert "in vdm_motion: its call 1" in text
    assert "vdm_spatial" not in text  # which is equal


def test_a_bundle_of_another_policy_is_one_clear_line(made: Path, tmp_path: Path) -> None:
    path = two_tasks(tmp_path / "other", changed(None))
    manifest = load_bundle(path).manifest
    seal(path, manifest.model_copy(update={"policy": "another"}))
    done = invoke(made / "run", "--bundle", path)
    assert done.exit_code == BundleError.exit_code
    assert done.stderr == (
        f"error: {path}: its policy is another, the recording's is tiny; "
        "give a bundle of the policy tiny\n"
    )


def test_a_chunk_that_this_version_would_not_make_is_said(made: Path) -> None:
    """A condition recorded as older than it was: System 1 refuses it, and that is not hidden."""

    class Older(Recording):
        def _rows(self, kind: type) -> Iterator[dict[str, Any]]:
            older = {"condition_seq": 1} if kind is ChunkMsg else {}
            return (row | older for row in super()._rows(kind))

    with pytest.raises(
        ConfigError, match=r"chunk \d+ cannot be made again .*hard_age.*replay with the ver"
    ):
        replayed(Older(made / "run"), made / "bundle")


FLOATS = st.floats(width=32, allow_nan=True, allow_infinity=True)


@given(st.lists(FLOATS, min_size=1, max_size=4))
def test_equal_bits_are_equal_whatever_they_mean(values: list[float]) -> None:
    array = np.array(values, np.float32)
    assert max_abs_difference(array, array.copy()) is None


def test_differences_are_the_largest_and_nan_where_there_is_no_number() -> None:
    one = np.array([1.0, np.inf, np.nan, 0.0], np.float32)
    assert max_abs_difference(one, one + np.array([0.5, 0, 0, 0], np.float32)) == 0.5
    assert max_abs_difference(one, np.array([1.0, 0.0, np.nan, 0.0], np.float32)) == np.inf
    assert np.isnan(max_abs_difference(one, np.zeros(4, np.float32)) or 0.0)
    assert np.isnan(max_abs_difference(one, one[:2]) or 0.0)
    assert (
        max_abs_difference(np.array([1.0], np.float16), np.array([1.0], np.float32)) == 0.0
    )  # not the same bits


def test_a_nan_is_not_lost_behind_a_number() -> None:
    comparison = Comparison()
    nothing, two = np.zeros(1, np.float32), np.full(1, 2.0, np.float32)
    for number, theirs in enumerate((two, np.full(1, np.nan, np.float32), two), start=1):
        calls = [Call("observe", number, {"x": array}) for array in (nothing, theirs)]
        comparison.add(calls[:1], calls[1:], 0.0, 1)
    assert comparison.first is not None
    assert comparison.first.max_abs_difference == 2.0
    assert np.isnan(comparison.stages["observe"].max_abs_difference)
    assert comparison.stages["observe"].differing == 3
