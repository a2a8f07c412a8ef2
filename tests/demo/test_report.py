"""The report: one page that stands alone, and films that play."""

from __future__ import annotations

import base64
import io
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from demo import film, report
from demo.film import FRAME_MS, Film, animation, mosaic
from demo.plant import Result
from demo.report import write_report
from demo.statistics import rate

ROW = {"n": 40, "mean_ms": 3.25, "p50_ms": 3.0, "p90_ms": 4.5, "p99_ms": 5.125, "p999_ms": 6.0}
SUMMARY: dict[str, Any] = {
    "task": "puck",
    "success_rate": 0.875,
    "n": 8,
    "ci95": [0.5291, 0.9776],
    "stages": {
        "denoise": {**ROW, "max_ms": 7.777},
        "vdm_motion": {**ROW, "mean_ms": 61.5, "max_ms": 88.0},
        "capture": {"n": 0, **dict.fromkeys([*list(ROW)[1:], "max_ms"])},
    },
    "ages": {
        name: {**ROW, "max_ms": 412.0} for name in ("condition_age", "chunk_age", "frame_to_motor")
    },
    "ticks": 1234,
    "missed_ticks": {"late": 5, "bus": 0, "no_chunk": 66},
    "seam_jumps_rad": {"n": 19, "mean": 0.004, "p50": 0.0031, "p99": 0.0124, "max": 0.02},
    "system1_period_s": 0.1,
    "versions": {"python": "3.11.7", "onnxruntime": "1.27"},
    "cpu_model": "A <fast> CPU & more",
}
STUDIES = {
    level: {mode: {**rate([True] * won + [False] * (20 - won)), "what": mode} for mode, won in rows}
    for level, rows in {
        "puck": [("async", 18), ("every_1", 19), ("every_16", 3), ("no_motion", 2)],
        "rebound": [("async", 15), ("every_1", 16), ("every_16", 0), ("no_motion", 1)],
    }.items()
}


def result(success: bool) -> Result:
    return Result(0, "puck", success, not success, (0.3, 0.0, 0.004), (0.3, 0.0))


def films(*lengths: int) -> list[Film]:
    rng = np.random.default_rng(0)
    return [
        (result(k % 2 == 0), tuple(rng.integers(0, 256, (length, 16, 24, 3), dtype=np.uint8)))
        for k, length in enumerate(lengths)
    ]


class Page(HTMLParser):
    """What a page says and what it refers to; a tag that is not closed is an error."""

    VOID = ("meta", "img")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.references: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        assert not self._open

    @property
    def text(self) -> str:
        return " ".join(self.words)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.references += [value or "" for name, value in attributes if name in ("src", "href")]
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data.strip())


def images(page: Page) -> list[Image.Image]:
    found = [base64.b64decode(reference.partition(",")[2]) for reference in page.references]
    return [Image.open(io.BytesIO(data)) for data in found]


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder where the report looks for studies."""
    folder = tmp_path / "results"
    folder.mkdir()
    monkeypatch.setattr(report, "RESULTS", folder)
    return folder


def test_the_page_stands_alone_and_has_the_figures(results: Path, tmp_path: Path) -> None:
    path = write_report(tmp_path / "new" / "report", SUMMARY, films(3, 4))
    assert path == tmp_path / "new" / "report" / "index.html"
    source = path.read_text(encoding="utf-8")
    page = Page(source)
    assert all(reference.startswith("data:image/") for reference in page.references)
    assert "http" not in source
    assert not {"link", "script", "iframe"} & set(page.tags)
    for figure in ("87.5 %", "52.9 to 97.8 %", "of 8 episodes", "3.250", "7.777", "61.500",
                   "412.000", "1234 control ticks", "late 5, bus 0, no chunk 66", "19 seams",
                   "3.1 mrad", "12.4 mrad", "A <fast> CPU & more", "onnxruntime 1.27"):  # fmt: skip
        assert figure in page.text, figure
    assert [image.format for image in images(page)] == ["WEBP", "PNG", "PNG"]


def test_the_summary_lies_beside_the_page(results: Path, tmp_path: Path) -> None:
    write_report(tmp_path, SUMMARY, [])
    assert json.loads((tmp_path / "demo.json").read_text()) == SUMMARY


def test_without_a_study_there_is_no_chapter_about_one(results: Path, tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, SUMMARY, []).read_text())
    assert "worth" not in page.text
    assert len(page.references) == 2


def test_committed_studies_are_plotted(results: Path, tmp_path: Path) -> None:
    for level, modes in STUDIES.items():
        (results / f"study_{level}.json").write_text(json.dumps({"modes": modes}))
    page = Page(write_report(tmp_path, SUMMARY, []).read_text())
    assert "What System 2 is worth" in page.text
    assert [image.format for image in images(page)] == ["PNG"] * 4
    assert report.load_studies() == json.loads(json.dumps(STUDIES))


def test_a_film_has_every_picture_at_the_size_of_the_mosaic() -> None:
    with Image.open(io.BytesIO(animation(films(5, 7), columns=3))) as webp:
        assert webp.format == "WEBP"
        assert getattr(webp, "n_frames", 1) == 7
        assert webp.info["loop"] == 0
        border = 2 * film._BORDER
        assert webp.size == (3 * (24 + border), 16 + border)
        webp.seek(1)
        webp.load()
        assert webp.info["duration"] == FRAME_MS


def test_a_film_that_is_over_keeps_its_last_picture_in_the_colour_of_its_end() -> None:
    won, lost = films(2, 4)
    first, *_, last = mosaic([won, lost], columns=2)
    inside = np.s_[4:-4, 4:28]
    np.testing.assert_array_equal(first[inside], won[1][0])
    np.testing.assert_array_equal(last[inside], won[1][-1])
    tile = 24 + 2 * film._BORDER
    assert tuple(last[0, 0]) == film._WON
    assert tuple(last[0, tile]) == film._LOST
    assert tuple(first[0, 0]) == tuple(first[0, tile]) == film._RUNNING
