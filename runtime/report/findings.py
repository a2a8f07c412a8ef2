"""Lists what was unusual in a run: stalls, late control ticks, changes of the safety state."""

from __future__ import annotations

from typing import Final

from runtime.report.formatting import ms, plural
from runtime.report.markup import Markup, joined, tag
from runtime.report.run_facts import RunFacts
from runtime.report.stalls import Stall

LISTED: Final = 5


def findings(run: RunFacts) -> Markup:
    """Make the list of the worst stalls, the control loop's timing and the safety states."""
    lines = [
        _line(run, stall.t0_ns, f"{describe_stall(stall)}{_beside(stall, run)}.")
        for stall in run.stalls[:LISTED]
    ]
    n = len(run.stalls)
    worst = f", the worst {LISTED}" if n > LISTED else ""
    lead = f"{plural(n, 'stall')} in the run{worst}:" if n else "No stall in the run."
    changes = [_line(run, change.t_ns, f"{change.state}: {change.reason}") for change in run.safety]
    return joined(
        [
            tag("h3", "What was unusual"),
            tag("p", lead),
            tag("ul", *lines),
            tag("p", _grid_line(run)),
            *([tag("h3", "Safety"), tag("ul", *changes)] if changes else ()),
        ]
    )


def _line(run: RunFacts, t_ns: int, text: str) -> Markup:
    return tag("li", tag("b", f"{max(run.at_s(t_ns), 0):.2f} s "), text)


def describe_stall(stall: Stall) -> str:
    """Format a stall: `system1: denoise took 62.1 ms, usually 11.9 ms`."""
    what = f"{stall.stages[0]} took" if len(stall.stages) == 1 else "silence of"
    where = "" if len(stall.stages) == 1 else f" between {stall.stages[0]} and {stall.stages[1]}"
    return f"{stall.thread}: {what} {ms(stall.took_ms)}{where}, usually {ms(stall.typical_ms)}"


def _beside(stall: Stall, run: RunFacts) -> str:
    others = {s.thread for s in run.stalls if s.thread != stall.thread and s.overlaps(stall)}
    together = f"; at the same time {' and '.join(sorted(others))}" if others else ""
    if run.ticks is None or stall.thread != "control":
        return together
    inside = (run.ticks.missed_ns >= stall.t0_ns) & (run.ticks.missed_ns < stall.t1_ns)
    return f"; {plural(int(inside.sum()), 'tick')} missed{together}" if inside.any() else together


def _grid_line(run: RunFacts) -> str:
    if run.ticks is None:
        return "No control loop ran."
    late_ms, period_ms = run.ticks.late_ns / 1e6, run.ticks.period_ns / 1e6
    n = len(run.ticks.missed_ns)
    return (
        f"Ticks every {ms(period_ms)}: {plural(n, 'grid point')} without one; "
        f"the latest began {ms(float(late_ms.max()))} after its grid point."
    )
