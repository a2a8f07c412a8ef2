"""Puts the parts of the page together, in one file that needs no network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Final

from runtime.profile_model import Profile
from runtime.report.ages import ages
from runtime.report.engines import engines, layers
from runtime.report.formatting import known, number, phrase, with_unit
from runtime.report.latency import latency
from runtime.report.machine_section import machine_section, missed_ticks
from runtime.report.markup import Markup, joined, tag
from runtime.report.run_facts import Recorded, read_run
from runtime.report.timeline import timeline
from runtime.report.verdict import budget_bars, figures, headline
from v2a.files import write_text

# A name in a profile cannot load anything from outside.
_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def write_report(profile: Profile, recording: Recorded, path: Path) -> None:
    """Write the page about a profile and the recording that it was made from to `path`."""
    write_text(path, page(profile, recording))


def page(profile: Profile, recording: Recorded) -> Markup:
    """The whole page as HTML."""
    run = read_run(recording)
    engine = [f"engine {profile.engine}"] if profile.engine else []
    options = [f"{phrase(name)} {value}" for name, value in profile.options.items()]
    others = profile.others_cores
    beside = [f"other programs used {number(others)} cores"] if known(others) else []
    length = with_unit(profile.seconds, "s")
    date = [profile.started_utc] if profile.started_utc else []
    dry = {True: ["dry run"], False: ["real robot"], None: []}[profile.dry_run]
    what = " · ".join([f"policy {profile.policy}", *date, *dry, *engine, *options, length, *beside])
    damaged = [tag("p", f"Incomplete: {profile.damaged}.")] if profile.damaged else []
    body = tag(
        "main",
        tag("header", tag("h1", "v2a profile"), tag("p", what, class_="what")),
        *damaged,
        headline(profile),
        figures(profile),
        budget_bars(profile),
        latency(profile, run.stages),
        timeline(run),
        missed_ticks(profile),
        ages(profile, run),
        engines(profile),
        layers(profile),
        machine_section(profile),
        _footer(),
    )
    head = tag(
        "head",
        Markup('<meta charset="utf-8">'),
        Markup(f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'),
        Markup('<meta name="viewport" content="width=device-width, initial-scale=1">'),
        tag("title", f"v2a profile: {profile.policy}"),
        tag("style", Markup(_file("page.css"))),
    )
    script = tag("script", Markup(_file("page.js")))
    return joined(
        [Markup("<!doctype html>"), tag("html", head, tag("body", body, script), lang="en")]
    )


def _footer() -> Markup:
    text = (
        "p99: 99 of 100 were faster. profile.json beside this page has the same numbers for "
        "programs. trace.perfetto-trace has every span; open it in the Perfetto UI."
    )
    return tag("footer", tag("p", text))


def _file(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
