"""Two profiles: the same program is within noise; a slower stage or a stall is named."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from runtime.host.run_delay import ThreadTimes
from runtime.profile.compare import ProfileComparison, compare_profiles
from runtime.profile.from_recording import profile_of_recording
from runtime.profile_model import Ratio
from runtime.recording.messages import to_json
from runtime.report.page import page
from tests.runtime.profile.conftest import PERIOD_NS, USUAL_MS, VirtualRun
from v2a.bundle import Bundle
from v2a.cli import cli


def verdicts(found: ProfileComparison) -> dict[str, str]:
    return {name: row.verdict for name, row in (found.stages | found.ages).items()}


def test_the_same_thing_twice_is_within_noise_in_19_of_20_tries(bundle: Bundle) -> None:
    runs = [VirtualRun(bundle, seed) for seed in range(40)]
    tries = [
        verdicts(compare_profiles(a.profile, b.profile))
        for a, b in zip(runs[::2], runs[1::2], strict=True)
    ]
    assert {"denoise", "vdm_motion", "condition_age"} <= tries[0].keys()
    quiet = [all(verdict == "within_noise" for verdict in found.values()) for found in tries]
    assert sum(quiet) >= 19


@pytest.mark.parametrize("slow", ["denoise", "vdm_motion", "frame_encode"])
def test_a_stage_that_takes_a_fifth_more_is_the_one_that_is_named(
    bundle: Bundle, usual: VirtualRun, slow: str
) -> None:
    slower = VirtualRun(bundle, seed=1, factors={slow: 1.2})
    found = compare_profiles(usual.profile, slower.profile)
    assert [n for n, verdict in verdicts(found).items() if verdict != "within_noise"] == [slow]
    row = found.stages[slow]
    assert row.verdict == "worse"
    assert row.ci95[0] <= 1.2 <= row.ci95[1]
    assert found.verdict.startswith(f"worse: {slow} 1.")
    back = compare_profiles(slower.profile, usual.profile)
    assert back.stages[slow].verdict == "better"


def test_stages_are_compared_by_name_whatever_their_index(
    bundle: Bundle, usual: VirtualRun
) -> None:
    manifest = bundle.manifest
    reversed_graphs = manifest.model_copy(update={"graphs": manifest.graphs[::-1]})
    other = VirtualRun(replace(bundle, manifest=reversed_graphs), seed=1, factors={"denoise": 1.2})
    assert other.recording.header.stages != usual.recording.header.stages
    found = verdicts(compare_profiles(usual.profile, other.profile))
    assert [name for name, verdict in found.items() if verdict != "within_noise"] == ["denoise"]


def test_a_stage_that_only_one_profile_has_is_left_out(usual: VirtualRun) -> None:
    stages = dict(usual.profile.stages)
    stages["decide"] = stages.pop("denoise")
    samples = {{"denoise": "decide"}.get(n, n): row for n, row in usual.profile.samples.items()}
    other = usual.profile.model_copy(update={"stages": stages, "samples": samples})
    for found in (compare_profiles(usual.profile, other), compare_profiles(other, usual.profile)):
        assert "observe" in found.stages
        assert not {"denoise", "decide"} & {*found.stages, *found.ages}


def test_a_stall_is_named_with_its_thread_stage_and_time(bundle: Bundle, usual: VirtualRun) -> None:
    stalled = VirtualRun(bundle, seed=1, stalls={"observe": (40, 50.0)})
    assert stalled.profile.tail.verdict.startswith("system1 stalled for ")
    worst, *_ = stalled.profile.tail.stalls
    assert (worst.thread, worst.stage, worst.after) == ("system1", "observe", None)
    assert worst.ms - worst.usual_ms == pytest.approx(50, abs=2)
    started_s = (39 * PERIOD_NS) / 1e9
    assert started_s < worst.at_s + 0.01 < started_s + PERIOD_NS / 1e9
    assert "system1: observe took 5" in page(stalled.profile, stalled.recording)  # the report
    found = compare_profiles(usual.profile, stalled.profile)
    assert found.new_stalls[0] == worst
    assert "new: system1 stalled for " in found.verdict
    assert "in observe at" in found.verdict
    # It is one call of 300: no stage is called slower for it.
    assert set(verdicts(found).values()) == {"within_noise"}


def test_budgets_measured_before_name_the_stage_that_is_slower_now(
    bundle: Bundle, usual: VirtualRun
) -> None:
    budgets = {name: {"p50_ms": 1.1 * usual.profile.stages[name].p50_ms} for name in USUAL_MS}
    slower = VirtualRun(bundle, seed=1, factors={"denoise": 1.2})
    found = profile_of_recording(slower.recording, budgets)  # type: ignore[arg-type]
    assert not found.budgets.ok
    says = "1 of 9 budgets are broken: denoise p50 "
    assert found.budgets.verdict.startswith(says)
    assert says in page(found, slower.recording)  # the report names it, too


def test_a_stage_that_ran_a_few_times_is_not_judged(bundle: Bundle) -> None:
    short = VirtualRun(bundle, chunks=12)
    slow = VirtualRun(bundle, seed=1, chunks=12, factors={"denoise": 2})
    found = compare_profiles(short.profile, slow.profile)
    assert {row.verdict for row in found.stages.values()} == {"cannot_tell"}
    assert "cannot tell: " in found.verdict
    assert "(fewer than 16 samples)" in found.verdict


def test_a_wide_noise_floor_of_the_machine_widens_the_interval(
    bundle: Bundle, usual: VirtualRun
) -> None:
    slower = VirtualRun(bundle, seed=1, factors={"denoise": 1.2})
    restless = {"denoise": Ratio(ratio=1.05, ci95=(0.8, 1.3))}
    before = usual.profile.model_copy(update={"noise_floor": restless})
    assert compare_profiles(before, slower.profile).stages["denoise"].verdict == "within_noise"


def test_what_waiting_for_a_core_beside_other_programs_explains_is_noise(
    bundle: Bundle, usual: VirtualRun
) -> None:
    slower = VirtualRun(bundle, seed=1, factors={"denoise": 1.5})
    waited_ms = 5.0 * slower.profile.stages["denoise"].n
    threads = [{"system1": ThreadTimes(run_delay_ms=ms)} for ms in (0.0, waited_ms)]
    before = usual.profile.model_copy(update={"threads": threads[0]})
    after = slower.profile.model_copy(update={"threads": threads[1]})
    found = compare_profiles(before, after.model_copy(update={"others_cores": 1.4}))
    assert found.stages["denoise"].verdict == "cannot_tell"
    assert found.verdict.startswith("cannot tell: ")
    assert found.verdict.endswith("; other programs used 0 and 1.4 cores")
    # Alone on the machine it is our own threads that wait for each other.
    assert compare_profiles(before, after).stages["denoise"].verdict == "worse"


def test_what_differs_from_run_to_run_as_much_is_noise(bundle: Bundle, usual: VirtualRun) -> None:
    slower = VirtualRun(bundle, seed=1, factors={"denoise": 1.2})
    steady, restless = ({"denoise": ms} for ms in ((11.0, 11.1, 10.9), (11.0, 14.0, 9.5)))
    kept = compare_profiles(usual.profile.model_copy(update={"repeats": steady}), slower.profile)
    assert kept.stages["denoise"].verdict == "worse"
    found = compare_profiles(usual.profile.model_copy(update={"repeats": restless}), slower.profile)
    assert found.stages["denoise"].verdict == "cannot_tell"


def test_what_a_slower_machine_explains_is_noise(bundle: Bundle, usual: VirtualRun) -> None:
    slower = VirtualRun(bundle, seed=1, factors=dict.fromkeys(USUAL_MS, 1.2))
    assert "worse" in verdicts(compare_profiles(usual.profile, slower.profile)).values()
    found = compare_profiles(usual.profile, slower.profile.model_copy(update={"yardstick_ms": 1.2}))
    assert set(verdicts(found).values()) == {"within_noise"}


def test_the_command_prints_ratio_interval_and_verdict_of_each_stage(
    bundle: Bundle, usual: VirtualRun, tmp_path: Path
) -> None:
    slower = VirtualRun(bundle, seed=1, factors={"denoise": 1.2})
    for name, run in (("a", usual), ("b", slower)):
        (tmp_path / f"{name}.json").write_text(to_json(run.profile.model_dump()))
    arguments = ["compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    printed = CliRunner().invoke(cli, [*arguments, "--json"])
    assert printed.exit_code == 0, printed.output
    found = json.loads(printed.stdout)
    assert found["stages"]["denoise"].keys() == {"ratio", "ci95", "verdict", "smallest_change"}
    assert found["stages"]["denoise"]["verdict"] == "worse"
    text = CliRunner().invoke(cli, arguments).stdout
    assert text.splitlines()[-1].startswith("worse: denoise 1.")


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("{", "not a profile"),
        ("[1]", "not a profile"),
        (
            '{"schema_version": 99}',
            "schema_version 99, this v2a reads 1; measure",
        ),
        ('{"schema_version": 1, "policy": 3}', "not a profile: policy: "),
        (None, "No such file"),
    ],
)
def test_what_is_no_profile_is_refused_in_a_line(
    tmp_path: Path, content: str | None, says: str
) -> None:
    path = tmp_path / "p.json"
    if content is not None:
        path.write_text(content)
    printed = CliRunner().invoke(cli, ["compare", str(path), str(path)])
    assert printed.exit_code == 2
    assert says in printed.stderr
    assert len(printed.stderr.splitlines()) == 1
