"""Draws the top of the page: the verdict, the four main figures, and a bar per budget."""

from __future__ import annotations

from runtime.profile_model import BudgetRow, Profile
from runtime.report.formatting import MISSING, QUANTILES, known, ms, number, percent, phrase
from runtime.report.markup import Markup, canvas, section, tag, upright

KEPT, BROKEN = 0.97, 0.7  # place of the limits on the bars; a longer bar is cut off


def headline(profile: Profile) -> Markup:
    """The verdict sentence; its color says whether the budgets hold."""
    budgets = profile.budgets
    if not budgets.rows:
        return tag(
            "p", _sentence(budgets.verdict or "no budgets were given"), class_="verdict none"
        )
    mark, kind = ("✓", "ok") if budgets.ok else ("✗", "bad")
    sign = tag("span", mark, class_="mark", aria_hidden="true")
    return tag("p", sign, _sentence(budgets.verdict), class_=f"verdict {kind}")


def figures(profile: Profile) -> Markup:
    """The ages of the data that moved the motors, the missed ticks, and the largest stage."""
    return tag(
        "dl",
        _age(profile, "frame_to_motor", "from a picture's capture to the motors' new goal"),
        _age(profile, "condition_age", "the age of System 2's result when System 1 used it"),
        _ticks(profile),
        _largest(profile),
        class_="figures",
    )


def budget_bars(profile: Profile) -> Markup:
    """The section with one bar for each budget."""
    rows = profile.budgets.rows
    if not rows:
        return tag("p", "No budget to measure against. Write a budgets.yaml to get a verdict.")
    limit_at = KEPT if all(row.ok for row in rows) else BROKEN
    lead = "Each bar against its limit, the line; the tightest first."
    return section("Budgets", lead, *(_bar(row, limit_at) for row in sorted(rows, key=_used)))


def _figure(name: str, value: str, *more: str, title: str | None = None) -> Markup:
    below = tag("dd", *more, class_="more")
    return tag("div", tag("dt", name, title=title), tag("dd", value), below)


def _age(profile: Profile, name: str, title: str) -> Markup:
    row = profile.ages.get(name)
    if row is None or not known(row.p99_ms):
        return _figure(phrase(name), MISSING, "in this run", title=title)
    return _figure(phrase(name), ms(row.p99_ms), f"at p99; p50 {ms(row.p50_ms)}", title=title)


def _ticks(profile: Profile) -> Markup:
    ticks, missed = profile.ticks, profile.missed_ticks
    if not missed or not ticks:
        return _figure("missed ticks", MISSING, "in this run")
    causes = [f"{phrase(cause)} {n}" for cause, n in missed.items() if n]
    more = f"{', '.join(causes)}; {number(ticks)} ticks ran" if causes else f"of {number(ticks)}"
    return _figure("missed ticks", number(sum(missed.values())), more)


def _largest(profile: Profile) -> Markup:
    stages = {name: row for name, row in profile.stages.items() if known(row.share)}
    if not stages:
        return _figure("largest share", MISSING, "no stage has a period")
    name = max(stages, key=lambda stage: stages[stage].share)
    more = f"{name}, of its period; p50 {ms(stages[name].p50_ms)}"
    return _figure("largest share", percent(stages[name].share), more)


def _sentence(text: str) -> str:
    bare = text.rstrip(".")
    return f"{bare[:1].upper()}{bare[1:]}."


def _used(row: BudgetRow) -> float:
    """Sorts the rows: the one that uses the largest part of its limit comes first."""
    found, limit = row.found_ms, row.limit_ms
    return -found / limit if known(found) and known(limit) and limit > 0 else 0.0


def _bar(row: BudgetRow, limit_at: float) -> Markup:
    found, limit = row.found_ms, row.limit_ms
    shapes = [upright(100 * limit_at, 0, 10, "limit")]
    if known(found) and known(limit) and limit > 0:
        length = min(100 * limit_at * found / limit, 100)
        shapes.insert(0, tag("rect", x=0, y=2, width=length, height=6))
        difference = abs(found - limit)
        says = f"{ms(difference)} {'to spare' if found <= limit else 'too much'}"
    else:
        says = "no verdict"
    quantile = QUANTILES.get(row.quantile, row.quantile)
    return tag(
        "div",
        tag("b", row.what, tag("small", f" {quantile}")),
        canvas(100, 10, *shapes, aria_hidden="true"),
        tag("span", f"{ms(found)} of {ms(limit)}"),
        tag("span", f"{'✓' if row.ok else '✗'} {says}", class_="says"),
        class_=f"budget {'ok' if row.ok else 'bad'}",
    )
