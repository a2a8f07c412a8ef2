"""A bundle whose graphs have names of its own: each reader of its run knows them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from runtime.convert import rerun
from runtime.profile.budgets import load_budgets
from runtime.profile.from_recording import profile_of_recording
from runtime.profile.text import profile_as_text
from runtime.recording.checks import check
from runtime.recording.messages import Spans
from runtime.recording.reader import Recording
from runtime.report.markup import joined
from runtime.report.page import page
from runtime.web.metrics import metrics
from runtime.web.start import about_run
from runtime.web.view import View, snapshot
from tests.runtime.conftest import (
    GRAPHS,
    World,
    after_ms,
    fakes,
    manifest,
    rising,
    run_config,
    write_tiny_bundle,
)
from tests.runtime.web.world import ARMED
from v2a.bundle import Bundle, GraphSpec, Manifest, load_bundle
from v2a.clock import FakeClock
from v2a.errors import BundleError, ConfigError
from v2a.names import MACHINE_STAGES

# The tiny policy's graphs, renamed; some names mean something to HTML, CSS, or a path.
FOREIGN = {
    "instruction": "words",
    "frame_encode": "see it/now",
    "vae_spatial": "latent 1",
    "vae_motion": "latent<2>",
    "vdm_spatial": "max",
    "vdm_motion": "part",
    "condition": "slow-result",
    "observe": 'look "twice"',
    "denoise": "rectified_flow_head",
}
SYSTEM1 = [FOREIGN[name] for name in ("frame_encode", "observe", "denoise")]
STAGES = (*MACHINE_STAGES, *FOREIGN.values())
ORDER = (*MACHINE_STAGES[:2], *FOREIGN.values(), *MACHINE_STAGES[2:])


@dataclass(frozen=True)
class ForeignBundle(Bundle):
    """`PolicyGraphs` asks for the graphs of one policy by name."""

    def graph(self, name: str) -> GraphSpec:
        return super().graph(FOREIGN.get(name, name))


def foreign_manifest() -> Manifest:
    whole = manifest()
    graphs = [graph.model_copy(update={"name": FOREIGN[graph.name]}) for graph in whole.graphs]
    return Manifest.model_validate(whole.model_copy(update={"graphs": graphs}).model_dump())


@dataclass
class Run:
    world: World
    recording: Recording
    stages: dict[str, int]  # stage -> how often it ran, as the run itself says


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("foreign")
    plain = load_bundle(
        write_tiny_bundle(folder / "bundle", lambda graph, path: path.write_bytes(b"fake"))
    )
    world = World(
        ForeignBundle(plain.path, foreign_manifest()),
        run_config(system2={"period_s": 0.2}),
        delays={"system1": after_ms(30), "system2": after_ms(90)},
        engines=fakes(**{FOREIGN["denoise"]: rising}),
        record_dir=folder / "run",
    )
    graphs = world.workers.graphs
    graphs._stage_index = {name: STAGES.index(own) for name, own in FOREIGN.items()}
    with world.lockstep as lockstep:
        lockstep.run(0.5)
        lockstep.arm()
        lockstep.run(3.0)
        found = {name: times.n for name, times in lockstep.summary().stages.items()}
    return Run(world, Recording(folder / "run"), found)


def test_the_header_names_every_stage_by_its_index(run: Run) -> None:
    assert run.recording.header.stages == STAGES
    rates = {FOREIGN[name]: rate for name, (rate, _, _) in GRAPHS.items()}
    assert run.recording.header.rates == rates


def test_the_summary_and_the_profile_have_all_stages_in_the_order_of_the_data_flow(
    run: Run,
) -> None:
    profile = profile_of_recording(run.recording)
    assert tuple(run.stages) == tuple(profile.stages) == ORDER
    ran = {name: row.n for name, row in profile.stages.items()}
    assert ran == run.stages
    assert ran["rectified_flow_head"] == profile.ages["condition_age"].n  # once for each chunk
    assert tuple(profile.engines) == tuple(FOREIGN.values())
    text = profile_as_text(profile)
    assert all(f"\n{name} " in text for name in STAGES)
    table = [row for row in text.splitlines() if row.startswith((*STAGES, "ms "))]
    assert len({len(row) for row in table}) == 1  # a long name moves no column


def test_the_limits_of_robot_yaml_hold_for_the_graphs_of_each_system(run: Run) -> None:
    config = run.recording.header.config
    limits_ms = {row.what: row.limit_ms for row in profile_of_recording(run.recording).budgets.rows}
    for name in SYSTEM1:
        assert limits_ms[name] == 1e3 * config.system1.period_s
    for name in ("latent 1", "latent<2>", "max", "part", "slow-result"):
        assert limits_ms[name] == 1e3 * config.system2.period_s
    assert "words" not in limits_ms


def test_the_report_shows_every_stage_and_takes_no_name_for_a_class(run: Run) -> None:
    text = page(profile_of_recording(run.recording), run.recording)
    for name in STAGES:
        assert f">{joined([name])}</b>" in text
    drawn = re.findall(r'<i class="([^"]*)" style="[^"]*" title="[^"]*" data-stage="([^"]*)"', text)
    classes = {stage: class_.removesuffix(" part") for class_, stage in drawn}
    assert {"see it/now", "rectified_flow_head", "max", "part", "tick", "capture"} <= classes.keys()
    for stage, class_ in classes.items():
        assert class_ == (stage if stage in MACHINE_STAGES else "graph")


def test_the_live_page_and_prometheus_tell_every_stage(run: Run) -> None:
    view = View(about_run(run.world.workers), FakeClock())
    for thread, rows in run.recording.spans().items():
        view.take(Spans(thread, rows))
    told = snapshot(view, 0, ARMED).stages_ms
    assert tuple(told) == ORDER
    text = metrics(view, 0, ARMED)
    for name, n in run.stages.items():
        label = name.replace('"', r"\"")
        assert f'v2a_stage_seconds_count{{stage="{label}"}} {float(n)!r}' in text


def test_the_trace_has_every_stage_and_the_arrows_of_both_systems(run: Run, tmp_path: Path) -> None:
    from tests.runtime.convert.test_perfetto import Trace  # here: it needs Node.js

    with Trace(run.recording, tmp_path / "trace") as trace:
        names = {name for (name,) in trace.rows("select distinct name from slice")}
        assert set(STAGES) <= names
        chunk = list(run.recording.chunks())[5]
        (look,) = trace.ids(FOREIGN["observe"], chunk.parent_seq)
        assert {name for name, _ in trace.arrows("preceding", look)} == {
            *("capture", "preprocess", "publish", "see it/now"),
            *("latent 1", "latent<2>", "max", "part", "slow-result"),
        }


def test_rerun_has_an_entity_for_every_stage(run: Run, tmp_path: Path) -> None:
    reader = pytest.importorskip("rerun.chunk", reason="rerun-sdk reads the export back")
    rerun.export([run.recording], tmp_path / "rrd")
    chunks = reader.RrdReader(tmp_path / "rrd" / "run.rrd").stream().to_chunks()
    entities = {chunk.entity_path for chunk in chunks}
    parts = {entity.removeprefix("/stage_ms/") for entity in entities if "/stage_ms/" in entity}
    assert {part.replace("\\", "") for part in parts} == set(STAGES)


def test_a_budget_may_limit_any_stage_of_the_run_and_no_other(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "budgets.yaml"
    path.write_text(
        "rectified_flow_head: {max_ms: 1}\nbus_read: {p99_ms: 2}\nchunk_age: {p50_ms: 3}\n"
    )
    assert load_budgets(path, run.recording.header.stages) == {
        "rectified_flow_head": {"max_ms": 1.0},
        "bus_read": {"p99_ms": 2.0},
        "chunk_age": {"p50_ms": 3.0},
    }
    path.write_text("tick: {max_ms: 1}\nrectified_flaw_head: {max_ms: 1}\n")
    says = "budgets.yaml:2: rectified_flaw_head: .*did you mean 'rectified_flow_head'"
    with pytest.raises(ConfigError, match=says):
        load_budgets(path, run.recording.header.stages)


@pytest.mark.parametrize("taken", ["tick", "capture", "chunk_age"])
def test_a_graph_with_the_name_of_a_machines_stage_is_refused(tmp_path: Path, taken: str) -> None:
    path = write_tiny_bundle(tmp_path / "b", lambda graph, path: path.write_bytes(b"fake"))
    file = path / "manifest.json"
    file.write_text(file.read_text().replace('"name": "denoise"', f'"name": "{taken}"'))
    with pytest.raises(BundleError, match=f"{taken}.*rename the graph"):
        load_bundle(path)


@pytest.mark.parametrize("drop", ["stages", "rates"])
def test_a_header_without_its_stages_is_refused(run: Run, drop: str) -> None:
    header = run.recording.header
    with pytest.raises(ValueError, match=drop):
        type(header).model_validate(header.model_dump(exclude={drop}))


def test_a_header_whose_stages_are_no_stages_is_refused(run: Run) -> None:
    header = run.recording.header
    with pytest.raises(ValueError, match="stages must be those of every run"):
        type(header).model_validate(header.model_dump() | {"stages": STAGES[::-1]})


@pytest.mark.parametrize("index", [-1, len(STAGES)])
def test_a_span_of_no_stage_of_the_run_is_refused(run: Run, index: int) -> None:
    check(Spans("system1", np.array([[len(STAGES) - 1, 0, 1, 0]], np.int64)), run.recording.header)
    with pytest.raises(ValueError, match="no stage"):
        check(Spans("system1", np.array([[index, 0, 1, 0]], np.int64)), run.recording.header)
