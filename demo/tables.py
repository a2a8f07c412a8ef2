"""Fills the tables of README.md and docs/measurements/demo.md from `demo/results/`.

Run `python -m demo.tables`.

A page holds each table between `<!-- NAME: written by python -m demo.tables -->` and
`<!-- end -->`. This program replaces everything between the two.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final

from demo.report import load_studies
from demo.statistics import RESULTS

ROOT: Final = Path(__file__).parents[1]
PAGES: Final = (ROOT / "README.md", ROOT / "docs" / "measurements" / "demo.md")
STAGES: Final = (
    "frame_encode",
    "observe",
    "denoise",
    "vae_motion",
    "vdm_motion",
    "condition",
    "bus_read",
    "tick",
)
_PLACE: Final = re.compile(
    r"(<!-- (\w+): written by python -m demo\.tables -->\n).*?(<!-- end -->)", re.DOTALL
)


def fill(page: str) -> str:
    """Return the page with all its tables rewritten. Raises KeyError for an unknown table."""
    return _PLACE.sub(lambda found: f"{found[1]}\n{TABLES[found[2]]()}\n\n{found[3]}", page)


def _success() -> str:
    """Write the main table: success in real time and without parts of the condition."""
    run, study = _realtime(), load_studies()
    cells = {
        f"`puck`, real time, {run['n']} episodes": run,
        "`puck`, virtual clock": study["puck"]["async"],
        "`puck`, motion stream zeroed": study["puck"]["no_motion"],
        "`puck`, all condition tokens zeroed": study["puck"]["no_condition"],
        "`rebound`, virtual clock": study["rebound"]["async"],
        "`rebound`, System 2 at a sixteenth of System 1's rate": study["rebound"]["every_16"],
    }
    rows = ((name, _rate(cell), str(cell["n"])) for name, cell in cells.items())
    return _table(("success, % (Wilson 95 %)", "", "episodes"), rows)


def _studies() -> str:
    """Write the table of all modes, levels and training seeds."""
    studies = {
        f"`{level}`, seed {seed}, n = {study['async']['n']}": study
        for seed, folder in enumerate((RESULTS, *sorted(RESULTS.glob("seed*"))))
        for level, study in load_studies(folder).items()
    }
    first = next(iter(studies.values()))
    rows = (
        (f"`{mode}`", cell["what"], *(_rate(study.get(mode)) for study in studies.values()))
        for mode, cell in first.items()
    )
    return _table(("mode", "", *studies), rows)


def _stages() -> str:
    stages = _realtime()["stages"]
    return _table(("stage, ms", "p50", "p99", "max"), (_ms(k, stages[k], 2) for k in STAGES))


def _ages() -> str:
    ages = _realtime()["ages"]
    return _table(("age, ms", "p50", "p99", "max"), (_ms(k, age, 0) for k, age in ages.items()))


def _run() -> str:
    run = _realtime()
    missed = ", ".join(f"{n} {cause.replace('_', ' ')}" for cause, n in run["missed_ticks"].items())
    seams = run["seam_jumps_rad"]
    return (
        f"{_rate(run)} % of {run['n']} episodes on `{run['task']}`; {run['ticks']} control ticks, "
        f"missed: {missed}. Jump at\nthe {seams['n']} seams between chunks, blended away before "
        f"the motors: median {1e3 * seams['p50']:.1f} mrad, largest\n"
        f"{1e3 * seams['max']:.0f} mrad. {run['cpu_model']}, two cores."
    )


TABLES: Final[dict[str, Callable[[], str]]] = {
    "success": _success,
    "studies": _studies,
    "stages": _stages,
    "ages": _ages,
    "run": _run,
}


def _realtime() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((RESULTS / "realtime_puck.json").read_text())
    return found


def _rate(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "not measured"
    low, high = (100 * bound for bound in cell["ci95"])
    return f"{100 * cell['success_rate']:.0f} ({low:.0f} to {high:.0f})"


def _ms(name: str, row: dict[str, float], digits: int) -> tuple[str, ...]:
    columns = ("p50_ms", "p99_ms", "max_ms")
    return (f"`{name}`", *(f"{row[column]:.{digits}f}" for column in columns))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [tuple(head), *map(tuple, rows)]
    texts = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([texts[0], "|" + "---|" * len(lines[0]), *texts[1:]])


def main() -> None:
    for page in PAGES:
        page.write_text(fill(page.read_text()))
        print(f"filled {page.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
