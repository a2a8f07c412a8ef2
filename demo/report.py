"""Writes one self-contained HTML page about a run of the demo: results, times and ages."""

from __future__ import annotations

import base64
import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from demo import plots
from demo.film import Film, animation
from demo.statistics import RESULTS
from v2a.files import write_text
from v2a.spans import COLUMNS

_PAGE: Final = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>v2a demo</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222 }}
body {{ max-width: 48rem; margin: 2rem auto; padding: 0 1rem }}
h1 {{ font-size: 1.6rem }} h2 {{ font-size: 1.15rem; margin-top: 2rem }}
img {{ max-width: 100%; height: auto }} .wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-size: .85rem }}
th, td {{ padding: .15rem .6rem; text-align: right }}
th:first-child, td:first-child {{ text-align: left }} tr:nth-child(even) {{ background: #f3f3f0 }}
small {{ color: #666 }}
</style></head><body>
{body}
</body></html>
"""


def write_report(folder: Path, summary: Mapping[str, Any], films: Sequence[Film]) -> Path:
    """Write `index.html` and `demo.json` to `folder`. Returns the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "demo.json", json.dumps(summary, indent=1) + "\n")
    page = folder / "index.html"
    write_text(page, _PAGE.format(body="\n".join(_sections(summary, films))))
    return page


def load_studies(folder: Path | None = None) -> dict[str, dict[str, Any]]:
    """Read the studies in a folder, by default those of the shipped policy.

    Returns level -> mode -> rate.
    """
    return {
        path.stem.removeprefix("study_"): json.loads(path.read_text())["modes"]
        for path in sorted((folder or RESULTS).glob("study_*.json"))
    }


def _sections(summary: Mapping[str, Any], films: Sequence[Film]) -> list[str]:
    return [
        *_outcome(summary, films),
        "<h2>Where the time goes</h2>",
        _image(plots.latency(summary["stages"]), "png", "latency of each stage"),
        _table("stage", summary["stages"]),
        "<h2>How old the data was</h2>",
        _image(plots.ages(summary["ages"]), "png", "ages by quantile"),
        _table("age", summary["ages"]),
        f"<p>{_control_line(summary)}</p>",
        *_study(summary["system1_period_s"]),
        _machine(summary),
    ]


def _outcome(summary: Mapping[str, Any], films: Sequence[Film]) -> list[str]:
    low, high = (100 * bound for bound in summary["ci95"])
    text = (
        f"<p><b>{100 * summary['success_rate']:.1f} %</b> of {summary['n']} episodes of level "
        f"<code>{html.escape(summary['task'])}</code> succeeded "
        f"(Wilson 95 %: {low:.1f} to {high:.1f} %). System 2 and System 1 ran as ONNX graphs in "
        "threads of their own. Joint targets and positions went over a serial port. The virtual "
        "servos ran in another process.</p>"
    )
    parts = ["<h1>A ring over a sliding puck</h1>", text]
    if films:
        caption = "episodes in real time; a green frame: the ring holds the puck, red: it does not"
        parts += [_image(animation(films), "webp", caption), f"<p><small>{caption}</small></p>"]
    return parts


def _study(system1_period_s: float) -> list[str]:
    studies = load_studies()
    if not studies:
        return []
    by_rate = plots.success_by_rate(studies, system1_period_s)
    return [
        "<h2>What System 2 is worth</h2>",
        "<p><small>From the committed study (<code>v2a demo --study</code>): the same episodes in "
        "every mode, on a virtual clock.</small></p>",
        _image(by_rate, "png", "success against System 2's refresh rate"),
        _image(plots.modes_bar(studies), "png", "success of each mode"),
    ]


def _control_line(summary: Mapping[str, Any]) -> str:
    causes = summary["missed_ticks"].items()
    missed = ", ".join(f"{cause.replace('_', ' ')} {n}" for cause, n in causes)
    seams = summary["seam_jumps_rad"]
    return (
        f"{summary['ticks']} control ticks; missed: {html.escape(missed)}. {seams['n']} seams "
        f"between chunks, jump median {1e3 * seams['p50']:.1f} mrad, p99 "
        f"{1e3 * seams['p99']:.1f} mrad, blended away before the motors."
    )


def _machine(summary: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in summary["versions"].items())
    return f"<p><small>{html.escape(summary['cpu_model'])}; {html.escape(versions)}</small></p>"


def _image(data: bytes, kind: str, alt: str) -> str:
    encoded = base64.b64encode(data).decode()
    return f'<p><img alt="{html.escape(alt)}" src="data:image/{kind};base64,{encoded}"></p>'


def _table(title: str, rows: Mapping[str, Mapping[str, float]]) -> str:
    head = "".join(f"<th>{html.escape(column.replace('_ms', ', ms'))}</th>" for column in COLUMNS)
    body = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{row['n']}</td>"
        + "".join(f"<td>{row[column]:.3f}</td>" for column in COLUMNS[1:])
        + "</tr>"
        for name, row in rows.items()
        if row["n"]
    )
    return (
        f'<div class="wide"><table><tr><th>{html.escape(title)}</th>{head}</tr>{body}</table></div>'
    )
