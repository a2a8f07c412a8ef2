"""Draws one second of the run: threads as rows, spans by stage, marks for late ticks and stalls."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np

from runtime.report.findings import describe_stall, findings
from runtime.report.formatting import ms, number
from runtime.report.looks import looks_of
from runtime.report.markup import Markup, joined, section, tag
from runtime.report.run_facts import RunFacts
from runtime.report.scale import label_at
from runtime.report.stalls import Rows, Stall, Ticks
from v2a.spans import GPU

SECOND_NS: Final = 1_000_000_000
ORDER: Final = ("camera", "system2", "system1", "control")
STARTING_S: Final = 1.0
LATE: Final = 0.25  # of a period; a tick that starts later than this is marked
ZOOMS: Final = {"1 s": 1, "250 ms": 4, "50 ms": 20}


def timeline(run: RunFacts) -> Markup:
    """The section with the chosen second."""
    if not run.spans:
        return section("A second of the run", "The recording has no spans: nothing can be drawn.")
    start_ns, why = chosen_second(run)
    end_ns = start_ns + SECOND_NS
    rows = joined(_thread(name, run, start_ns, end_ns) for name in _in_order(run))
    marks = tag("div", *_time_labels(), class_="axis")
    inner = tag("div", marks, rows, class_="inner")
    return section(
        "A second of the run",
        f"From {run.at_s(start_ns):.2f} s to {run.at_s(end_ns):.2f} s of "
        f"{run.at_s(run.t1_ns):.1f} s: {why} Touch a span to see the picture that it worked on.",
        _zoom_buttons(),
        tag("div", inner, class_="timeline", tabindex="0"),
        tag("output", "", class_="picked", aria_live="polite"),
        _legend(),
        findings(run),
    )


def chosen_second(run: RunFacts) -> tuple[int, str]:
    """Return the start of the second, and why: the worst stall, a missed tick, or the middle."""
    # The start of a run always has a stall, so it is the last choice.
    later = [stall for stall in run.stalls if run.at_s(stall.t0_ns) > STARTING_S]
    if run.stalls:
        worst = (later or run.stalls)[0]
        after = " after the first second" if worst is not run.stalls[0] else ""
        middle, why = (
            worst.t0_ns + worst.t1_ns,
            f"it holds the worst stall{after} ({describe_stall(worst)}).",
        )
    elif run.ticks is not None and len(run.ticks.missed_ns):
        middle, why = 2 * int(run.ticks.missed_ns[0]), "it holds the first missed tick."
    else:
        middle, why = run.t0_ns + run.t1_ns, "the middle of the run, as nothing was unusual."
    start_ns = min(middle // 2 - SECOND_NS // 2, run.t1_ns - SECOND_NS)
    return max(start_ns, run.t0_ns), why


def _in_order(run: RunFacts) -> list[str]:
    """The threads in their order; a thread's work on the GPU follows it."""
    both = (name for thread in ORDER for name in (thread, GPU + thread))
    return [name for name in both if name in run.spans]


def _thread(name: str, run: RunFacts, start_ns: int, end_ns: int) -> Markup:
    rows = run.spans[name]
    shown = rows[(rows[:, 2] > start_ns) & (rows[:, 1] < end_ns)]
    stalls = [s for s in run.stalls if s.thread == name and _within(s, start_ns)]
    # Only the worst shows its number: the numbers of neighbours would overlap.
    marks = [_stall(stall, start_ns, stall is stalls[0]) for stall in stalls]
    if name == "control" and run.ticks is not None:
        marks += _late_ticks(run.ticks, start_ns)
    slices = _slices(name, shown, run, start_ns)
    label = tag("span", name, class_="thread")
    return tag("div", label, tag("div", *slices, *marks, class_="lane"), class_="track")


def _slices(thread: str, rows: Rows, run: RunFacts, start_ns: int) -> Iterator[Markup]:
    outer_end_ns, looks = 0, looks_of(run.stages)
    thread = thread.removeprefix(GPU)
    for index, t0_ns, t1_ns, arg in rows.tolist():
        stage = run.stages[index]
        look = looks[stage]
        inside = t1_ns <= outer_end_ns
        outer_end_ns = max(outer_end_ns, t1_ns)
        frames = run.frames.get(f"publish {thread}" if stage == "publish" else thread)
        frame = arg if frames is None else frames.get(arg)
        text = f"{stage} {ms((t1_ns - t0_ns) / 1e6)} at {number((t0_ns - start_ns) / 1e6)} ms"
        yield tag(
            "i",
            tag("b", stage),
            class_=f"{look.class_} part" if inside else look.class_,
            style=f"{_place(t0_ns, t1_ns, start_ns)};{look.style or ''}",
            title=f"{text}{_about(thread, arg, frame)}",
            data_stage=stage,
            data_frame=frame,
        )


def _about(thread: str, arg: int, frame: int | None) -> str:
    chunk = f", chunk {arg}" if thread == "control" and arg else ""
    return f"{chunk}, from picture {frame}" if frame else chunk


def _stall(stall: Stall, start_ns: int, numbered: bool) -> Markup:
    number_of_it = [tag("b", f"+{number(stall.excess_ms)} ms")] if numbered else []
    place = _place(stall.t0_ns, stall.t1_ns, start_ns)
    return tag("em", *number_of_it, class_="stall", style=place, title=describe_stall(stall))


def _within(stall: Stall, start_ns: int) -> bool:
    return stall.t1_ns > start_ns and stall.t0_ns < start_ns + SECOND_NS


def _late_ticks(ticks: Ticks, start_ns: int) -> Iterator[Markup]:
    late = ticks.late_ns > LATE * ticks.period_ns
    for begun_ns, by_ns in np.stack([ticks.starts_ns, ticks.late_ns], axis=1)[late].tolist():
        if 0 <= begun_ns - start_ns < SECOND_NS:
            place = _place(begun_ns - by_ns, begun_ns, start_ns)
            yield tag("em", class_="late", style=place, title=f"began {ms(by_ns / 1e6)} late")
    for due_ns in ticks.missed_ns.tolist():
        if 0 <= due_ns - start_ns < SECOND_NS:
            yield tag("em", class_="missed", style=_place(due_ns, due_ns, start_ns))


def _place(t0_ns: int, t1_ns: int, start_ns: int) -> str:
    left = max(t0_ns - start_ns, 0) / SECOND_NS
    right = min(t1_ns - start_ns, SECOND_NS) / SECOND_NS
    return f"left:{100 * left:.4f}%;width:{100 * (right - left):.4f}%"


def _time_labels() -> Iterator[Markup]:
    """A label every 200 ms, and more of them for a zoomed timeline."""
    for k in range(101):
        class_ = None if k % 20 == 0 else "zoom4" if k % 5 == 0 else "zoom20"
        yield label_at(k / 100, f"{10 * k} ms", class_)


def _zoom_buttons() -> Markup:
    buttons = (
        tag("button", text, type="button", data_zoom=factor, aria_pressed=str(factor == 1).lower())
        for text, factor in ZOOMS.items()
    )
    return tag("p", *buttons, class_="zoom", hidden="hidden")  # the page's script shows them


def _legend() -> Markup:
    items = (
        ("missed", "a grid point without a tick"),
        ("late", "a tick more than a quarter of its period late"),
        ("stall", "a stall, with its excess"),
    )
    return tag("p", *(tag("span", tag("i", class_=k), f" {t}") for k, t in items), class_="legend")
