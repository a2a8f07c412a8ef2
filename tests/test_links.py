"""Links between the pages and to files of the repository lead somewhere: on GitHub and on the site.

Links to other servers are not followed: the gate needs no network.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tools.docs_site import LINK, navigation

PAGES = [*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").rglob("*.md"))]


def prose(page: Path) -> str:
    """The page without its fenced blocks."""
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """The anchors of the page's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings}


def faults(page: Path) -> Iterator[str]:
    """Each link of the page that leads nowhere."""
    for _, target in LINK.findall(prose(page)):
        if "://" in target or target.startswith("mailto:"):
            continue
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor not in anchors(file)):
            yield target


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(REPOSITORY).as_posix())
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    assert list(faults(page)) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# One & two\n```sh\n# no heading\n```\n")
    page = tmp_path / "page.md"
    page.write_text("[a](other.md#one--two) [b](none.md) [c](other.md#no-heading) [d](#nothing)")
    assert list(faults(page)) == ["none.md", "other.md#no-heading", "#nothing"]


INDEX = (
    "# v2a\n\n## Start\n\n[Demo](demo.md)\n\n## How to\n\n| [Run](run.md) | [x](https://x.y) |\n"
)


def test_the_sections_of_the_site_are_those_of_the_index_and_a_new_page_is_in_it() -> None:
    assert navigation(INDEX, ["demo.md", "index.md", "new/page.md", "run.md"]) == [
        {"Contents": "index.md"},
        {"Start": [{"Demo": "demo.md"}]},
        {"How to": [{"Run": "run.md"}]},
        {"More": ["new/page.md"]},
    ]


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ("[code](../tools/docs_site.py)", ""),
        ("[code](../tools/none.py)", "link to ../tools/none.py, which does not exist"),
        ("[page](none.md)", "none.md"),
        ("[anchor](demo.md#nothing)", "nothing"),
    ],
)
def test_a_broken_link_fails_the_site(tmp_path: Path, link: str, fault: str) -> None:
    pytest.importorskip("mkdocs", reason="mkdocs is not installed")
    for name in ("mkdocs.yml", "tools"):
        (tmp_path / name).symlink_to(REPOSITORY / name)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "index.md").write_text(INDEX)
    (tmp_path / "docs" / "run.md").write_text("# Run\n")
    (tmp_path / "docs" / "demo.md").write_text(f"# Demo\n\n{link}\n")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--config-file", "mkdocs.yml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (done.returncode != 0) == bool(fault), done.stderr
    assert fault in done.stderr
