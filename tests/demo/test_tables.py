"""The figures in README.md and docs/measurements/demo.md are those of `demo/results/`."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo import tables


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.parent.name)
def test_the_tables_say_what_was_measured(page: Path) -> None:
    text = page.read_text()
    assert text.count("written by python -m demo.tables") == text.count("<!-- end -->") > 0
    assert tables.fill(text) == text, "run python -m demo.tables"


def test_a_page_that_asks_for_an_unknown_table_is_refused() -> None:
    with pytest.raises(KeyError, match="nothing"):
        tables.fill("<!-- nothing: written by python -m demo.tables -->\n<!-- end -->")
