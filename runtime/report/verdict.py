"""The top of the page: the verdict, the four figures that matter most, and a bar a budget."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from runtime.report.formatting import (
    MISSING,
    QUANTILES,
    Profile,
    known,
    ms,
    number,
    percent,
    phrase,
)
from runtime.report.markup import Markup, canvas, section, tag, upright

KEPT, BROKEN = 0.97, 0.7  # where the limits are, of a bar's width; what is longer is cut off


def headline(profile: Profile) -> Markup:
    """The verdict sentence, coloured by whether the budgets hold."""
    budgets = profile.get("budgets") or {}
    if not budgets.get("rows"):
        said = _sentence(budgets.get("verdict") or "no budgets were given")
        return tag("p", said, class_="verdict none")
    mark, kind = ("✓", "ok") if budgets.get("ok") else ("✗", "bad")
    sign = tag("span", mark, class_="mark", aria_hidden="true")
    return tag("p", sign, _sentence(budgets.get("verdict")), class_=f"verdict {kind}")


def figures(profile: Profile) -> Markup:
    """How old what moved the motors was, and what cost most."""
    ages = profile.get("ages") or {}
    return tag(
        "dl",
        _age(ages, "frame_to_motor", "from a picture's capture to the motors' new goal"),
        _age(ages, "condition_age", "how old System 2's result was for System 1"),
        _ticks(profile),
        _dearest(profile),
        class_="figures",
    )


def budget_bars(profile: Profile) -> Markup:
    rows = (profile.get("budgets") or {}).get("rows") or ()
    if not rows:
        return tag("p", "No budget to measure against. Write a budgets.yaml to get a verdict.")
    limit_at = KEPT if all(row.get("ok") for row in rows) else BROKEN
    lead = "Each bar against its limit, the line; the tightest first."
    return section("Budgets", lead, *(_bar(row, limit_at) for row in sorted(rows, key=_used)))


def _figure(name: str, value: str, *more: str, title: str | None = None) -> Markup:
    below = tag("dd", *more, class_="more")
    return tag("div", tag("dt", name, title=title), tag("dd", value), below)


def _age(ages: Profile, name: str, title: str) -> Markup:
    row = ages.get(name) or {}
    more = f"at p99; p50 {ms(row.get('p50_ms'))}" if known(row.get("p99_ms")) else "in this run"
    return _figure(phrase(name), ms(row.get("p99_ms")), more, title=title)


def _ticks(profile: Profile) -> Markup:
    ticks, missed = profile.get("ticks"), profile.get("missed_ticks")
    if not missed or not ticks:
        return _figure("missed ticks", MISSING, "in this run")
    causes = [f"{phrase(cause)} {n}" for cause, n in missed.items() if n]
    more = f"{', '.join(causes)}; {number(ticks)} ticks ran" if causes else f"of {number(ticks)}"
    return _figure("missed ticks", number(sum(missed.values())), more)


def _dearest(profile: Profile) -> Markup:
    stages = profile.get("stages") or {}
    shares = {name: row.get("share") for name, row in stages.items() if known(row.get("share"))}
    if not shares:
        return _figure("largest share", MISSING, "no stage has a period")
    name = max(shares, key=lambda stage: shares[stage])
    more = f"{name}, of its period; p50 {ms(stages[name].get('p50_ms'))}"
    return _figure("largest share", percent(shares[name]), more)


def _sentence(text: object) -> str:
    said = str(text or "").rstrip(".")
    return f"{said[:1].upper()}{said[1:]}."


def _used(row: Mapping[str, Any]) -> float:
    """The larger the part of its limit that is used, the less."""
    found, limit = row.get("found_ms"), row.get("limit_ms")
    return -found / limit if known(found) and known(limit) and limit > 0 else 0.0


def _quantile(row: Mapping[str, Any]) -> str:
    name = str(row.get("quantile"))
    return QUANTILES.get(name, name)


def _bar(row: Mapping[str, Any], limit_at: float) -> Markup:
    found, limit = row.get("found_ms"), row.get("limit_ms")
    ok = bool(row.get("ok"))
    shapes = [upright(100 * limit_at, 0, 10, "limit")]
    if known(found) and known(limit) and limit > 0:
        length = min(100 * limit_at * found / limit, 100)
        shapes.insert(0, tag("rect", x=0, y=2, width=length, height=6))
        difference = abs(found - limit)
        says = f"{ms(difference)} {'to spare' if found <= limit else 'too much'}"
    else:
        says = "no verdict"
    kind = "ok" if ok else "bad"
    return tag(
        "div",
        tag("b", str(row.get("what")), tag("small", f" {_quantile(row)}")),
        canvas(100, 10, *shapes, aria_hidden="true"),
        tag("span", f"{ms(found)} of {ms(limit)}"),
        tag("span", f"{'✓' if ok else '✗'} {says}", class_="says"),
        class_=f"budget {kind}",
    )
