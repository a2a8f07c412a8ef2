"""Makes the screenshots of the report in docs/ from a profile's folder:

    v2a profile demo/bundle --camera file:demo/clip.mp4 \\
        -o runs/screens
    python -m tools.screens runs/screens

Needs Chromium on the PATH, and pillow.
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from PIL import Image

from tests.chromium import Page, open_page
from tests.conftest import REPOSITORY

DESK, PHONE, HEIGHT = 1100, 390, 1250
GAP: Final = 20
# Clicks the first visible denoise span, which shows its picture's path.
PICK: Final = """(() => {
    const left = document.querySelector(".timeline").getBoundingClientRect().left;
    const inSight = span => span.getBoundingClientRect().left > left;
    [...document.querySelectorAll(".lane [data-stage=denoise]")].find(inSight)?.click();
})()"""


def desk_and_phone(page: Page, address: str, folder: Path) -> Image.Image:
    """Take the top of the page: the light desktop page, and beside it the dark phone page."""
    whole = Image.new("RGB", (DESK + GAP + PHONE, HEIGHT), "white")
    for x, width, dark in ((0, DESK, False), (DESK + GAP, PHONE, True)):
        page.show(address, width, HEIGHT, dark=dark)
        with Image.open(page.screenshot(folder / "top.png")) as shot:
            whole.paste(shot.crop((0, 0, width, HEIGHT)), (x, 0))
    return whole


def timeline(page: Page, address: str, folder: Path) -> Image.Image:
    """Take the zoomed timeline with one picture's path through the threads."""
    page.show(address, DESK)
    page.evaluate("document.querySelector('[data-zoom=\"4\"]').click()")
    page.evaluate(PICK)
    with Image.open(page.screenshot(folder / "t.png", "section:has(.timeline)")) as shot:
        return shot.copy()


def main(run: Path) -> None:
    address = (run / "report.html").resolve().as_uri()
    with TemporaryDirectory() as name, open_page(Path(name) / "chromium") as page:
        for stem, make in (("report", desk_and_phone), ("report_timeline", timeline)):
            path = REPOSITORY / "docs" / f"{stem}.webp"
            make(page, address, Path(name)).save(path, quality=75, method=6)
            print(f"{path}: {path.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
