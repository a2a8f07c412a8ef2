"""Makes HTML and SVG by nested calls. Every text that is not `Markup` is escaped."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence


class Markup(str):
    """Text that is already HTML."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: object) -> Markup:
    """`<name attributes>children</name>`; `class_` is class, `data_x` data-x; None is left out."""
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(_text(value))}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{joined(children)}</{name}>")


def joined(parts: Iterable[str]) -> Markup:
    """The parts one after the other, escaped where they are no `Markup`."""
    return Markup("".join(p if isinstance(p, Markup) else html.escape(p) for p in parts))


def canvas(width: float, height: float, *shapes: str, **attributes: object) -> Markup:
    """An SVG that is stretched to the width of its column. Lines keep their thickness.

    It must not hold text, because text would be stretched too.
    """
    box = f"0 0 {_text(width)} {_text(height)}"
    return tag("svg", *shapes, viewBox=box, preserveAspectRatio="none", **attributes)


def path(points: Iterable[tuple[float, float]], **attributes: object) -> Markup:
    """A line through the points (x, y)."""
    drawn = "L".join(f"{_text(float(x))} {_text(float(y))}" for x, y in points)
    return tag("path", d=f"M{drawn}", **attributes)


def upright(x: float, y0: float, y1: float, class_: str) -> Markup:
    """A vertical line."""
    return path([(x, y0), (x, y1)], class_=class_)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Markup:
    """A table that scrolls sideways if it is wider than the screen."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell) for cell in row[1:]))
        for row in rows
    )
    whole = tag("table", tag("thead", top), tag("tbody", *body))
    # Focusable, so a keyboard can scroll it.
    return tag("div", whole, class_="wide", tabindex="0")


def section(title: str, lead: str, *parts: str) -> Markup:
    """A section of the page: a heading, a first sentence, and its parts."""
    heading = tag("h2", title)
    return tag("section", heading, tag("p", lead, class_="lead"), *parts)


def _text(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.2f}".rstrip("0").rstrip(".")
    return str(value)
