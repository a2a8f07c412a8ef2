"""Every table that a command prints fits a terminal of 80 columns, also with its widest figures."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from export.plan.devices import DEVICES
from runtime.profile.compare import compare_profiles, comparison_as_text
from runtime.profile.paired import ComparedEngine, EngineComparison, engine_comparison_as_text
from runtime.profile.sweep import Sweep, SweepPoint, sweep_as_text
from runtime.profile.text import profile_as_text
from runtime.profile_model import Profile, Ratio
from runtime.recording.cli import _text as info_as_text
from runtime.recording.info import look_into
from runtime.recording.reader import Recording
from runtime.summary import as_text
from tests.conftest import REPOSITORY
from tests.runtime.conftest import write_tiny_bundle
from tests.runtime.profile.conftest import USUAL_MS, VirtualRun
from tests.runtime.recording.messages import HEADER, recorder_of, state, summary
from v2a.bundle import load_bundle
from v2a.cli import cli
from v2a.measured import Times
from v2a.terminal import WIDTH, columns

NOT_A_TABLE: Final = "  "  # sentences have no two blanks in a row
HOURS = {"n": 8_640_000}  # 24 hours of ticks
LONG_MS = {f"{name}_ms": 9999.9 for name in ("mean", "p50", "p90", "p99", "p999", "max")}
FEW = {"few": ("p90_ms", "p99_ms", "p999_ms")}
LONG = Times.model_validate(HOURS | LONG_MS | FEW)


def profile(folder: Path) -> Profile:
    path = write_tiny_bundle(folder / "bundle", lambda graph, file: file.write_bytes(b"fake"))
    return VirtualRun(load_bundle(path)).profile


def of_a_profile(folder: Path) -> str:
    found = profile(folder)
    wide = HOURS | LONG_MS | FEW | {"budget_ms": 1000.0, "misses": 99_999}
    update: dict[str, Any] = {
        "stages": {name: row.model_copy(update=wide | {"share": 0.99}) for name, row in
                   found.stages.items()},
        "ages": {name: row.model_copy(update=wide) for name, row in found.ages.items()},
        "engines": {name: row.model_copy(update={"alone": LONG, "under_load": LONG,
                                                 "overhead_ms": 999.9}) for name, row in
                    found.engines.items()},
        "noise_floor": {name: Ratio(ratio=1.0, ci95=(0.9, 1.1)) for name in found.engines},
    }  # fmt: skip
    return profile_as_text(found.model_copy(update=update))


def of_a_comparison(folder: Path) -> str:
    found = profile(folder)
    return comparison_as_text(compare_profiles(found, found))


def of_two_bundles(folder: Path) -> str:
    row = ComparedEngine(
        ratio=1.234, ci95=(0.987, 1.345), verdict="cannot_tell", smallest_change=0.12,
        before=LONG, after=LONG, noise_floor=Ratio(ratio=1.0, ci95=(0.9, 1.1)),
    )  # fmt: skip
    return engine_comparison_as_text(
        EngineComparison(verdict="within noise", engines=dict.fromkeys(USUAL_MS, row))
    )


def of_a_sweep(folder: Path) -> str:
    options = {"engine": "onnxruntime", "system2.period_s": "0.25", "threads": "16"}
    figures = dict.fromkeys(USUAL_MS, 9999.99)
    point = SweepPoint(
        options=options, folder="", missed_ticks=99_999, p50_ms=figures, p99_ms=figures,
        against_first="within noise",
    )  # fmt: skip
    return sweep_as_text(Sweep(points=(point, point)))


def of_a_run(folder: Path) -> str:
    stages = dict.fromkeys((*USUAL_MS, "bus_read", "frame_to_motor"), LONG)
    return as_text(summary().model_copy(update={"stages": stages}))


def of_a_recording(folder: Path) -> str:
    recorder = recorder_of(folder / "run").open(HEADER)
    recorder.offer(state(1))
    recorder.close(summary)
    return info_as_text(look_into(Recording(folder / "run")))


def of_a_plan(folder: Path) -> str:
    files = ("demo/policy.yaml", "export/release/released.yaml")
    shown = [
        CliRunner().invoke(cli, ["plan", str(REPOSITORY / file), "--device", device])
        for file in files
        for device in DEVICES
    ]
    assert not any(result.exit_code for result in shown)
    rows = [line for result in shown for line in result.stdout.split("\n\n")[1].splitlines()]
    assert len(rows) > 100
    return "\n".join(rows)


PRINTED: tuple[Callable[[Path], str], ...] = (
    of_a_profile, of_a_comparison, of_two_bundles, of_a_sweep, of_a_run, of_a_recording, of_a_plan,
)  # fmt: skip


def table_lines(text: str) -> Iterator[str]:
    return (line for line in text.splitlines() if NOT_A_TABLE in line)


@pytest.mark.parametrize("printed", PRINTED)
def test_a_table_fits_80_columns(printed: Callable[[Path], str], tmp_path: Path) -> None:
    lines = list(table_lines(printed(tmp_path)))
    assert len(lines) > 1
    assert [line for line in lines if len(line) > WIDTH] == []


@given(st.lists(st.lists(st.text("ab", max_size=30), min_size=6, max_size=6), min_size=1))
def test_columns_that_do_not_fit_go_below(cells: list[list[str]]) -> None:
    """The tables of scan, monitor, setup, calibrate, check and sweep are made by `columns`."""
    header = [f"head {k}" for k in range(6)]
    lines = columns(header, cells)
    assert all(len(line) <= WIDTH for line in lines)
    words = " ".join(lines).split()
    assert all(word in words for row in cells for cell in row for word in cell.split())
