"""Draws how old the data was, over the run."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import numpy.typing as npt

from runtime.profile_model import BudgetedTimes, Profile
from runtime.report.formatting import MISSING, known, ms, phrase
from runtime.report.markup import Markup, canvas, path, section, tag
from runtime.report.run_facts import Points, RunFacts
from runtime.report.scale import axis_labels, ceiling

WIDTH, HEIGHT = 1000, 120
NEAR: Final = 3  # a budget up to this many times the highest age is drawn
QUARTERED: Final = (1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10)  # a quarter of each is a short number
COLUMNS: Final = 300  # more points than this are drawn as range and median of each column

_MEANING: Final = {
    "frame_to_motor": "from the capture of a picture to its goal for the motors, at each write",
    "chunk_age": "since the publication of the current chunk, at each tick",
    "condition_age": "age of System 2's newest picture when System 1 uses it",
}


def ages(profile: Profile, run: RunFacts) -> Markup:
    """The section with one plot for each age."""
    lead = "Over the run. The line is the median, the band reaches from the youngest to the oldest."
    parts = (_age(name, profile.ages.get(name), run) for name in _MEANING)
    return section("How old the data was", lead, *parts)


def columns(points: Points, n: int) -> npt.NDArray[np.float64]:
    """Reduce points to at most `n` columns, float64 [<= n, 4]: time in s; min, median, max in ms.

    `points` is float64 [m, 2]: time in s, age in ms.
    """
    t_s = points[:, 0]
    place = np.floor((t_s - t_s.min()) / max(float(np.ptp(t_s)), 1e-9) * (n - 1e-6))
    groups = (points[place == k] for k in np.unique(place))
    return np.array(
        [[np.median(g[:, 0]), g[:, 1].min(), np.median(g[:, 1]), g[:, 1].max()] for g in groups]
    )


def _age(name: str, row: BudgetedTimes | None, run: RunFacts) -> Markup:
    points = run.ages[name]
    if row is not None and known(row.p50_ms):
        few = f" (~ only {row.n} samples: the longest)" if "p99_ms" in row.few else ""
        says = f"p50 {ms(row.p50_ms)}, p99 {ms(row.p99_ms)}{few}"
    else:
        says = f"{MISSING}: no chunk moved the motors"
    budget_ms = None if row is None else row.budget_ms
    over = "no budget"
    if row is not None and known(budget_ms):
        over = f"{row.misses} over the budget of {ms(budget_ms)}"
    heading = tag("h3", phrase(name), tag("small", f" {_MEANING[name]}"))
    parts = [heading, tag("p", f"{says}; {over}", class_="says")]
    if len(points):
        parts.append(_plot(points, budget_ms, run.at_s(run.t1_ns)))
    return tag("div", *parts, class_="age")


def _plot(points: Points, budget_ms: float | None, seconds: float) -> Markup:
    drawn = columns(points, COLUMNS)
    highest = float(drawn[:, 3].max())
    # A budget far above all ages would flatten the curve; then only the text names it.
    limits = [budget_ms] if known(budget_ms) and budget_ms <= NEAR * highest else []
    top_ms = ceiling(1.05 * max(highest, *limits, 0.1), QUARTERED)
    shapes = _curve(drawn, seconds, top_ms) + [_across(v / top_ms, "limit") for v in limits]
    step_s = ceiling(seconds / 5)
    times = (k * step_s for k in range(math.ceil(seconds / step_s)))
    heights = (tag("span", f"{top_ms * k / 4:g}") for k in (4, 3, 2, 1, 0))
    return tag(
        "div",
        tag("div", *heights, class_="heights"),
        canvas(WIDTH, HEIGHT, *(_across(k / 4, "grid") for k in (1, 2, 3)), *shapes),
        axis_labels((t_s / seconds, f"{t_s:g} s") for t_s in times),
        class_="plot",
    )


def _across(height: float, class_: str) -> Markup:
    y = HEIGHT * (1 - height)
    return path([(0, y), (WIDTH, y)], class_=class_)


def _curve(drawn: npt.NDArray[np.float64], seconds: float, top_ms: float) -> list[Markup]:
    x = (WIDTH * np.clip(drawn[:, 0] / seconds, 0, 1)).tolist()
    low, middle, high = (HEIGHT * (1 - drawn[:, 1:] / top_ms)).T.tolist()
    around = zip(x + x[::-1], high + low[::-1], strict=True)
    return [path(around, class_="band"), path(zip(x, middle, strict=True), class_="line")]
