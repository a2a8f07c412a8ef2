"""Hooks that mkdocs calls to build the docs site, for what `mkdocs.yml` cannot express.

- The navigation follows `docs/index.md`: each `##` heading is a section with the pages that are
  linked below it. Pages that `index.md` does not link follow under "More".
- A link from a page to a file outside `docs/` works on GitHub but has no target on the site.
  `on_page_markdown` checks that the file exists and keeps only the text of the link.
"""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

LOG = logging.getLogger("mkdocs.hooks.docs_site")  # `mkdocs build --strict` fails on a warning
LINK = re.compile(r"\[([^\]]*)\]\(([^)\s]+)\)")


def sections(index: str) -> dict[str, dict[str, str]]:
    """Read from `index.md` heading -> page -> title, in the order of the text."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^## ", index, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        links = {page: title for title, page in LINK.findall(text) if page.endswith(".md")}
        if links:
            found[heading.strip()] = links
    return found


def navigation(index: str, pages: list[str]) -> list[dict[str, Any]]:
    """Make mkdocs' `nav`: the sections of `index.md`, then every other page."""
    found = sections(index)
    linked = {"index.md"}.union(*found.values())
    nav: list[dict[str, Any]] = [{"Contents": "index.md"}]
    for heading, links in found.items():
        nav.append({heading: [{title: page} for page, title in links.items()]})
    others = sorted(set(pages) - linked)
    return nav + ([{"More": others}] if others else [])


def on_config(config: Any) -> Any:
    """Set the navigation. mkdocs calls this once."""
    docs = Path(config.docs_dir)
    pages = [path.relative_to(docs).as_posix() for path in docs.rglob("*.md")]
    config.nav = navigation((docs / "index.md").read_text(), pages)
    return config


def on_page_markdown(markdown: str, page: Any, config: Any, files: Any) -> str:
    """Check and drop the links that leave `docs/`. mkdocs calls this for each page."""
    docs = Path(config.docs_dir).resolve()
    folder = (docs / page.file.src_uri).parent

    def checked(link: re.Match[str]) -> str:
        text, target = link.groups()
        if "://" in target or target.startswith(("#", "mailto:")):
            return link.group()
        path = (folder / target.partition("#")[0]).resolve()
        if path.is_relative_to(docs):
            return link.group()
        if not path.exists():
            LOG.warning("%s: link to %s, which does not exist", page.file.src_uri, target)
        return text

    return LINK.sub(checked, markdown)
