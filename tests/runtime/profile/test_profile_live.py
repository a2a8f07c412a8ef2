"""`v2a profile` as a user meets it: on a bundle without a robot, on a run that is over, in CI."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy.typing as npt
import pytest
from click.testing import CliRunner, Result

pytest.importorskip("onnxruntime", reason="these tests run ONNX Runtime")

from hw_drivers.robot.robot import Robot
from hw_drivers.virtual.loopback import LoopbackPort
from runtime.engines.base import EngineFactory
from runtime.engines.fake import FakeEngine
from runtime.policy.graphs import SUPPLIED
from runtime.profile.files import read_profile
from runtime.profile.from_recording import profile_of_recording
from runtime.profile.subject import virtual_config
from runtime.recording.reader import Recording
from runtime.supervisor import Runtime
from runtime.workers import build_workers
from tests.runtime.conftest import TASK, make_chain, rising, run_config
from v2a.bundle import Bundle
from v2a.cli import cli
from v2a.clock import MonotonicClock
from v2a.names import AGES
from v2a.spans import Tracer

pytestmark = pytest.mark.real_time

EVERY_STAGE = {"capture", "preprocess", "frame_encode", "vae_spatial", "vae_motion", "vdm_spatial",
               "vdm_motion", "condition", "observe", "denoise", "publish", "tick", "bus_read",
               "bus_write"}  # fmt: skip


def v2a(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, prog_name="v2a")


def profile(*arguments: str) -> Result:
    return v2a("profile", *arguments)


def test_a_bundle_is_profiled_without_a_robot_and_its_run_again(folder: Path) -> None:
    """One run for all of it: a second of it is a second of everybody's time."""
    first = profile("bundle", "--seconds", "2", "--json", "-o", "out")
    assert first.exit_code == 0, first.output
    printed = json.loads(first.stdout)
    out = folder / "out"
    assert {path.name for path in out.iterdir()} == {
        "run.mcap", "summary.json", "profile.json", "report.html", "trace.perfetto-trace"
    }  # fmt: skip
    found = json.loads((out / "profile.json").read_text())
    assert printed == {name: value for name, value in found.items() if name != "samples"}
    assert found["stages"].keys() >= EVERY_STAGE
    assert found["ages"].keys() == set(AGES)
    assert found["ages"]["frame_to_motor"]["n"] > 10  # a virtual robot was moved
    assert found["noise_floor"].keys() == found["engines"].keys() | {"instruction"}
    denoise = found["engines"]["denoise"]
    assert denoise["alone"]["n"] >= 32
    assert denoise["under_load"]["n"] == found["stages"]["denoise"]["n"]
    assert (
        found["stages"]["tick"] | {"thread": "control", "period_ms": 20.0}
        == (found["stages"]["tick"])
    )
    assert found["memory"]["policy"]["peak_mib"] > 1
    assert "control_process" in found["memory"]
    assert found["others_cores"] >= 0
    assert found["yardstick_ms"] > 0
    assert [len(found["repeats"][name]) for name in ("denoise", "frame_to_motor")] == [3, 3]
    assert found["machine"]["cores"] >= 1
    assert "python" in found["machine"]["versions"]
    assert found["machine"]["realtime"].keys() >= {"scheduling", "memory"}
    assert found["threads"]["system1"]["cpu_s"] >= 0
    assert found["device"] is None
    assert found["layers"].keys() == found["noise_floor"].keys()

    # Budgets that somebody wrote are an exit code; those that robot.yaml promises are not.
    (folder / "budgets.yaml").write_text("denoise: {p50_ms: 0.000001}\ntick: {max_ms: 60000}\n")
    again = profile("--run", "out", "--budgets", "budgets.yaml", "-o", "again")
    assert again.exit_code == 8
    assert again.stderr.splitlines()[-1].startswith(
        "error: 1 of 2 budgets are broken: denoise p50 "
    )
    assert again.stdout.splitlines()[-1].startswith("1 of 2 budgets are broken")
    of_run = json.loads((folder / "again" / "profile.json").read_text())
    assert of_run["stages"]["denoise"]["p50_ms"] == found["stages"]["denoise"]["p50_ms"]
    assert of_run["stages"]["tick"]["misses"] == 0
    assert of_run["engines"]["denoise"]["alone"] is None

    taken = profile("bundle", "--seconds", "1", "-o", "out")
    assert taken.exit_code == 2
    assert taken.stderr.splitlines()[-1].startswith("error: out: ")


def test_the_engines_of_two_bundles_are_run_in_turn(folder: Path) -> None:
    found = v2a("compare", "bundle", "bundle", "--json")
    assert found.exit_code == 0, found.output
    compared = json.loads(found.stdout)
    assert compared.keys() == {"schema_version", "verdict", "engines"}
    assert compared["engines"].keys() == set(SUPPLIED)
    row = compared["engines"]["denoise"]
    assert row["before"]["n"] == row["after"]["n"] >= 16
    assert row["ci95"][0] < row["ratio"] < row["ci95"][1]
    assert row["verdict"] in ("better", "worse", "within_noise")
    assert not (folder / "runs").exists()


def test_a_sweep_writes_a_profile_for_each_value_and_one_table(folder: Path) -> None:
    done = v2a("sweep", "bundle", "rate_hz=50,100", "--seconds", "0.5", "-o", "swept", "--json")
    assert done.exit_code == 0, done.output
    printed = json.loads(done.stdout)
    assert printed == json.loads((folder / "swept" / "sweep.json").read_text())
    assert printed["schema_version"] == 1
    assert [point["options"] for point in printed["points"]] == [
        {"rate_hz": "50"}, {"rate_hz": "100"}
    ]  # fmt: skip
    for point in printed["points"]:
        found = read_profile(folder / point["folder"])
        assert found.stages["tick"].period_ms == 1e3 / float(point["options"]["rate_hz"])
        assert found.stages["tick"].p50_ms == point["p50_ms"]["tick"]


class Stalling(FakeEngine):
    """Sleeps 50 ms, once, when it has run `calls` times; `at_ns` is when."""

    at_ns = 0

    def __init__(self, graph: Any, calls: int) -> None:
        super().__init__(graph, function=rising)
        self._left = calls

    def run(self, feeds: Mapping[str, npt.NDArray[Any]]) -> dict[str, npt.NDArray[Any]]:
        self._left -= 1
        if self._left == 0:
            Stalling.at_ns = time.monotonic_ns()
            time.sleep(0.05)
        return super().run(feeds)


def test_a_stall_in_a_thread_of_a_real_run_is_named(bundle: Bundle, tmp_path: Path) -> None:
    """Others may stand still, too, on a busy machine: the planted one must be among them."""
    clock = MonotonicClock()
    config = run_config(camera={"source": "synthetic:", "fps": 40}, system1={"period_s": 0.025})

    def engines(graph: Any, path: Path) -> FakeEngine:
        return Stalling(graph, 25) if graph.name == "denoise" else FakeEngine(graph)

    run_for(bundle, config, engines, clock, tmp_path / "run", seconds=1.5)
    found = profile_of_recording(Recording(tmp_path / "run")).tail.stalls
    planted = [row for row in found if (row.thread, row.stage) == ("system1", "denoise")]
    assert planted
    assert max(row.ms - row.usual_ms for row in planted) >= 49


def run_for(
    bundle: Bundle,
    config: Any,
    engines: EngineFactory,
    clock: MonotonicClock,
    folder: Path,
    seconds: float,
) -> None:
    from hw_drivers.cameras.camera import open_camera

    view = bundle.manifest.cameras[0]
    camera = open_camera(config.camera.source, (view.width, view.height), config.camera.fps, clock)
    robot = Robot(config.robot, clock, LoopbackPort(make_chain()))
    workers = build_workers(bundle, robot, camera, config, clock, Tracer(), engines)
    with Runtime(workers, folder) as runtime:
        runtime.arm()
        runtime.wait(seconds)


def test_the_virtual_robot_is_what_the_bundle_asks_for(bundle: Bundle) -> None:
    config = virtual_config(bundle.manifest, "synthetic:")
    assert [joint.name for joint in config.robot.joints] == ["base", "tip"]
    assert config.camera.fps == 20
    assert config.instruction == TASK
