"""A sweep: which combinations, what is refused and why, and the table."""

from __future__ import annotations

from pathlib import Path

import pytest

from runtime.profile.subject import Subject, virtual_config
from runtime.profile.sweep import points, run_sweep, sweep_as_text, with_options
from runtime.profile_model import Profile
from tests.runtime.profile.conftest import VirtualRun
from v2a.bundle import Bundle
from v2a.errors import ConfigError


@pytest.fixture
def subject(bundle: Bundle) -> Subject:
    return Subject(bundle, virtual_config(bundle.manifest, "synthetic:"), "virtual")


def test_every_combination_is_a_point() -> None:
    assert points(["threads=1,2", "rate_hz=50,100"]) == [
        {"threads": "1", "rate_hz": "50"},
        {"threads": "1", "rate_hz": "100"},
        {"threads": "2", "rate_hz": "50"},
        {"threads": "2", "rate_hz": "100"},
    ]


@pytest.mark.parametrize(
    ("axis", "says"),
    [
        ("steps=3,5", "unrolled in denoise.onnx when the bundle is exported"),
        ("precision=fp16", "chosen when the bundle is exported"),
        ("speed=1", "one of engine, threads, rate_hz"),
        ("threads", "write KEY=A,B"),
        ("threads=1,", "write KEY=A,B"),
        ("threads=1,1", "a value is there twice"),
    ],
)
def test_what_can_not_be_swept_is_refused_with_the_reason(axis: str, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        points([axis])


def test_an_axis_that_is_there_twice_is_refused() -> None:
    with pytest.raises(ConfigError, match="threads is there twice"):
        points(["threads=1,2", "threads=4"])


def test_a_folder_with_content_is_refused_before_anything_is_measured(
    subject: Subject, tmp_path: Path
) -> None:
    (tmp_path / "threads=2").mkdir()
    (tmp_path / "threads=2" / "run.mcap").touch()

    def never(subject: Subject, folder: Path) -> Profile:
        raise AssertionError("measured")

    with pytest.raises(ConfigError, match=r"threads=2: can't record there"):
        run_sweep(subject, ["threads=1,2"], never, tmp_path)


@pytest.mark.parametrize(
    ("point", "says"),
    [
        ({"threads": "many"}, "threads=many: must be a whole number, 1 to 1024"),
        ({"threads": "0"}, "threads=0: must be a whole number"),
        ({"threads": "1e6"}, "threads=1e6: must be a whole number"),
        ({"threads": "9" * 20}, "must be a whole number"),
        ({"rate_hz": "fast"}, "rate_hz=fast: must be a number"),
        ({"rate_hz": "nan"}, "rate_hz=nan: "),
        ({"fps": "1e9"}, "fps=1e9: must be 0.1 to 1000"),
        ({"engine": "gpu"}, "engine=gpu: must be one of ort"),
        ({"rate_hz": "-5"}, "rate_hz=-5: must be 2 to 1000"),
    ],
)
def test_a_value_that_can_not_be_is_refused(
    subject: Subject, point: dict[str, str], says: str
) -> None:
    with pytest.raises(ConfigError, match=says):
        with_options(subject, point)


def test_options_reach_the_engine_and_the_run(subject: Subject) -> None:
    chosen = with_options(
        subject, {"engine": "fake", "threads": "2", "rate_hz": "100", "system2.period_s": "0.5"}
    )
    assert (chosen.engine, chosen.threads) == ("fake", 2)
    assert chosen.config.control.rate_hz == 100
    assert chosen.config.system2.period_s == 0.5
    assert subject.config.control.rate_hz == 50


def test_one_table_compares_each_point_with_the_first(
    bundle: Bundle, subject: Subject, tmp_path: Path
) -> None:
    def measure(chosen: Subject, folder: Path) -> Profile:
        factors = {"denoise": 1.0 if chosen.threads == 1 else 0.5}
        return VirtualRun(bundle, seed=chosen.threads, factors=factors).profile

    swept = run_sweep(subject, ["threads=1,2"], measure, tmp_path)
    rows = swept.points
    assert [row.options for row in rows] == [{"threads": "1"}, {"threads": "2"}]
    assert rows[0].against_first == "within noise"
    assert rows[1].against_first.startswith("better: denoise 0.")
    assert [row.folder for row in rows] == [f"{tmp_path}/threads={n}" for n in (1, 2)]
    table = sweep_as_text(swept).splitlines()
    assert "denoise" in table[0]
    assert table[1].startswith("threads=1")
    assert table[-1].startswith("threads=2 against threads=1: better: denoise")
