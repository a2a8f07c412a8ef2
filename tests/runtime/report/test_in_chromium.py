"""The page in a real browser: a phone's width and a desk's, light and dark."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from runtime.report import write_report
from tests.chromium import Page, find_chromium, open_page
from tests.runtime.report.world import Plant, make_profile, make_recording

pytestmark = pytest.mark.skipif(find_chromium() is None, reason="no Chromium on the PATH")

SCREENS = [(390, False), (390, True), (1280, False), (1280, True)]
# What is wider than the screen and does not scroll by itself.
TOO_WIDE = """[...document.querySelectorAll("main *")].filter(e =>
    !e.closest(".wide, .timeline") && e.getBoundingClientRect().right > innerWidth + 0.5
).map(e => e.outerHTML.slice(0, 120))"""
MARK = """(() => {
    const [outer, mark] = [".timeline", ".stall"].map(
        s => document.querySelector(s).getBoundingClientRect());
    return mark.left < outer.right && mark.right > outer.left;
})()"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    recording = make_recording(
        Plant("camera", "", 2_300, 130), Plant("control", "bus_read", 6_700, 46)
    )
    path = tmp_path_factory.mktemp("page") / "report.html"
    write_report(make_profile(recording), recording, path)
    return path.as_uri()


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(tmp_path_factory.mktemp("chromium")) as page:
        yield page


@pytest.mark.parametrize(("width", "dark"), SCREENS)
def test_it_fits_and_has_no_fault(width: int, dark: bool, address: str, browser: Page) -> None:
    browser.requests.clear()
    browser.show(address, width, dark=dark)
    for opened in (False, True):
        browser.evaluate(
            f"document.querySelectorAll('details').forEach(d => d.open = {str(opened).lower()})"
        )
        assert browser.evaluate("document.documentElement.scrollWidth") == width
        assert browser.evaluate(TOO_WIDE) == []
    assert browser.faults == []
    assert browser.requests == [address]
    paper = browser.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (paper == "rgb(20, 23, 27)") is dark


@pytest.mark.parametrize("width", [390, 1280])
def test_zooming_in_stays_on_the_stall(width: int, address: str, browser: Page) -> None:
    browser.show(address, width)
    shown = browser.evaluate("document.querySelector('.inner').clientWidth")
    assert browser.evaluate("document.querySelector('.zoom').hidden") is False
    for factor in (4, 20):
        browser.evaluate(f"document.querySelector('[data-zoom=\"{factor}\"]').click()")
        wide = browser.evaluate("document.querySelector('.inner').clientWidth")
        assert wide == pytest.approx(factor * shown, abs=factor)
        assert browser.evaluate(MARK) is True
    assert browser.evaluate("document.documentElement.scrollWidth") == width


def test_a_touched_span_shows_all_that_came_of_its_picture(address: str, browser: Page) -> None:
    browser.show(address, 1280)
    picked = "[...document.querySelectorAll('.lane .of-one')]"
    browser.evaluate("document.querySelectorAll('.lane [data-stage=denoise]')[1].click()")
    frames = browser.evaluate(f"{picked}.map(e => e.dataset.frame)")
    stages = set(browser.evaluate(f"{picked}.map(e => e.dataset.stage)"))
    assert len(set(frames)) == 1
    assert {"capture", "frame_encode", "observe", "denoise", "tick", "bus_write"} <= stages
    assert f"from picture {frames[0]}" in browser.evaluate(
        "document.querySelector('.picked').textContent"
    )
    browser.evaluate("document.querySelector('.lane').click()")
    assert browser.evaluate(f"{picked}.length") == 0
