"""The page about a profile: what it shows comes from the profile, what is missing it says."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from runtime.profile.from_recording import profile_of_recording
from runtime.profile_model import Histogram, Profile
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from runtime.report import write_report
from runtime.report.latency import density
from runtime.report.page import page
from runtime.report.scale import LogAxis
from tests.runtime.conftest import World
from tests.runtime.report.world import FakeRecording, Plant, make_json, make_profile, make_recording
from v2a.bundle import Bundle
from v2a.names import AGES

VOID = {"meta", "br", "img", "link", "hr", "input"}
# Rounded to three digits, a number is off by at most 5 in 1000; 1.005 rounds either way.
ROUNDED = 5.001e-3


class Reader(HTMLParser):
    """Reads strictly: whatever is opened is closed, in order. Keeps texts, tables, attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[tuple[str, str]] = []  # class of the nearest element that has one, text
        self.attributes: list[tuple[str, str, str]] = []
        self.rows: list[list[str]] = []
        self._classes: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in VOID:
            self.open.append(tag)
            self._classes.append(dict(attrs).get("class") or "")

    def handle_endtag(self, tag: str) -> None:
        assert self.open[-1:] == [tag], f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()
        self._classes.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open or "script" in self.open:
            return
        self.texts.append((next((c for c in reversed(self._classes) if c), ""), data))
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(data for _, data in self.texts)


@pytest.fixture(scope="module")
def recording() -> FakeRecording:
    return make_recording(Plant("control", "bus_read", 6_700, 46))


@pytest.fixture
def profile(recording: FakeRecording) -> Profile:
    return make_profile(recording)


def numbers_in(value: Any) -> Iterator[float]:
    if isinstance(value, dict):
        shown = (inner for key, inner in value.items() if key not in ("histogram", "samples"))
        yield from (number for inner in shown for number in numbers_in(inner))
    elif isinstance(value, list):
        yield from (number for inner in value for number in numbers_in(inner))
    elif isinstance(value, (int, float)) and not isinstance(value, bool):
        yield float(value)


def test_the_file_is_one_page_that_parses_and_asks_for_nothing(
    profile: Profile, recording: FakeRecording, tmp_path: Path
) -> None:
    write_report(profile, recording, tmp_path / "report.html")
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]
    text = (tmp_path / "report.html").read_text(encoding="utf-8")
    reader = Reader(text)
    fetching = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}
    assert not [found for found in reader.attributes if found[1] in fetching]
    assert not re.search(r"https?:|//\w|url\(|@import|fetch\(|XMLHttp|import\(", text)


def test_the_stage_table_is_the_profile(profile: Profile, recording: FakeRecording) -> None:
    columns = ("n", "mean_ms", "p50_ms", "p90_ms", "p99_ms", "p999_ms", "max_ms")
    tables = Reader(page(profile, recording)).rows
    rows = {row[0]: row[1:] for row in reversed(tables)}  # of a name the first: that table
    for stage, found in profile.stages.items():
        shown = dict(zip(columns, rows[stage], strict=False))
        for column in columns:
            assert float(shown[column]) == pytest.approx(getattr(found, column), rel=ROUNDED), (
                stage,
                column,
            )
        share = float(rows[stage][7].removesuffix(" %")) / 100
        assert share == pytest.approx(found.share, rel=ROUNDED)
        assert rows[stage][8] == ("–" if found.budget_ms is None else rows[stage][8])  # noqa: RUF001


def test_every_time_and_share_that_is_shown_comes_from_the_profile(
    profile: Profile, recording: FakeRecording
) -> None:
    budgets = profile.budgets.model_copy(update={"verdict": "not a number in it"})
    profile = profile.model_copy(update={"budgets": budgets})
    known = np.array(list(numbers_in(profile.model_dump(mode="json"))))
    sums = [[row.ms for row in graph] for graph in profile.layers.values()]
    spare = [abs(row.limit_ms - row.found_ms) for row in budgets.rows]
    known = np.concatenate([known, 100 * known, spare, [sum(values) for values in sums]])
    text = page(profile, recording)
    start, end = text.index("<h2>A second of the run"), text.index("<h2>Missed ticks")
    reader = Reader(text[:start].removesuffix("<section>") + "<section>" + text[end:])
    shown = [
        float(number)
        for class_, data in reader.texts
        if "axis" not in class_ and data != "95 % from"
        for number in re.findall(r"(\d[\d.]*)(?: ms\b| %)", data)
    ]
    assert len(shown) > 60
    for number in shown:
        assert np.isclose(known, number, rtol=ROUNDED, atol=0).any(), number


EMPTY: dict[str, Any] = {  # part of the profile -> what a run without it has
    **{part: {} for part in ("stages", "ages", "noise_floor", "engines", "threads")},
    **{part: {} for part in ("memory", "layers", "missed_ticks")},
    "budgets": {"ok": True, "verdict": "no budget was tested", "rows": []},
    "ticks": 0,
}
SAID = re.compile(r"[Nn]ot measured|Not recorded|No \w+|nothing was|in this run")


@pytest.fixture(scope="module")
def complete(recording: FakeRecording) -> str:
    return Reader(page(make_profile(recording), recording)).text


@pytest.mark.parametrize("part", EMPTY)
def test_a_part_that_is_missing_is_said(part: str, recording: FakeRecording, complete: str) -> None:
    without = Reader(page(make_profile(recording, **{part: EMPTY[part]}), recording)).text
    assert len(SAID.findall(without)) > len(SAID.findall(complete))
    assert not re.search(r"\b(None|nan|inf|null)\b", without)


def poisoned(value: Any, poison: float | None) -> Any:
    if isinstance(value, dict):
        return {key: poisoned(inner, poison) for key, inner in value.items()}
    if isinstance(value, list):
        return [poisoned(inner, poison) for inner in value]
    return poison if isinstance(value, float) else value


@pytest.mark.parametrize("poison", [math.nan, math.inf, None])
def test_numbers_that_are_none_are_never_drawn_as_numbers(
    poison: float | None, recording: FakeRecording
) -> None:
    poor = poisoned(make_json(recording), poison) | {"seconds": 10.0}
    text = page(Profile.model_validate(poor), recording)
    reader = Reader(text)
    assert "not measured" in reader.text
    assert not re.search(r"\b(None|nan|inf)\b", reader.text)
    drawn = [value for tag, _, value in reader.attributes if tag in ("path", "rect", "svg")]
    assert drawn
    assert not [value for value in drawn if re.search("nan|inf|None", value)]


def test_a_recording_without_spans_has_no_timeline_and_says_so(profile: Profile) -> None:
    reader = Reader(page(profile, FakeRecording({}, changes=[])))
    assert "The recording has no spans" in reader.text
    assert all(f"{age.replace('_', ' ')}" in reader.text for age in AGES)


def test_names_from_outside_are_text(recording: FakeRecording) -> None:
    evil = "<script>alert(1)</script>\"'&"
    profile = make_profile(
        recording,
        policy=evil,
        layers={evil: [{"module": evil, "share": 1.0, "ms": 1.0}]},
        machine={"versions": {evil: evil}, "realtime": {}},
        missed_ticks={evil: 3},
    )
    reader = Reader(page(profile, recording))
    assert reader.text.count("alert(1)") >= 6
    assert "alert" not in "".join(tag for tag, _, _ in reader.attributes)


def test_a_device_that_slowed_down_is_said(recording: FakeRecording) -> None:
    device = {
        "power_w": {"VDD_IN": {"mean": 11.24, "max": 14.98}},
        "temperature_c": {"cpu": {"mean": 71.5, "max": 88.25}},
        "clock_mhz": {},
        "power_mode": "MODE_15W",
        "throttled": ["4.2 s: cpu-throttle-alert"],
    }
    reader = Reader(page(make_profile(recording, device=device), recording))
    assert "The board slowed down:" in reader.text
    assert "4.2 s: cpu-throttle-alert" in reader.text
    assert ["VDD_IN", "power, W", "11.2", "15.0"] in reader.rows


def test_the_page_is_the_same_from_the_profile_that_was_written_to_a_file(
    profile: Profile, recording: FakeRecording
) -> None:
    written = json.loads(to_json(profile.model_dump()))
    assert page(Profile.model_validate(written), recording) == page(profile, recording)


def test_a_histogram_keeps_its_shape_on_the_axis_of_all_stages() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(2.0, 0.4, 20_000)
    counts, edges = np.histogram(values, np.geomspace(0.5, 100, 400))
    axis = LogAxis(0.1, 1000.0)
    found = np.array(density(Histogram(edges_ms=edges.tolist(), counts=counts.tolist()), axis))
    expected, _ = np.histogram(values, axis.edges(len(found)))
    # Heights are square roots of counts, the highest is 1.
    assert found == pytest.approx(np.sqrt(expected / expected.max()), abs=0.06)
    assert found.max() == 1.0


def test_a_run_on_a_virtual_clock_in_which_nothing_takes_time_is_drawn(
    bundle: Bundle, tmp_path: Path
) -> None:
    world = World(bundle, record_dir=tmp_path / "run")
    world.lockstep.start().run(3.0)
    world.lockstep.stop()
    recording = Recording(tmp_path / "run")
    found = Reader(page(profile_of_recording(recording), recording))
    assert "denoise" in found.text
    assert "No stall in the run." in found.text
    assert not re.search(r"\b(None|nan|inf)\b", found.text)
