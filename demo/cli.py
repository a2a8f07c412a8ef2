"""`v2a demo`: runs a trained policy on a simulated robot, or studies what System 2 is worth."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import click
import numpy as np

from demo.episodes import BUNDLE, CHECKPOINT, Session, run_episodes
from demo.plant import Result
from demo.report import write_report
from demo.statistics import rate
from demo.task import LEVELS, Level
from runtime.recording.messages import to_json
from runtime.summary import as_text, versions
from runtime.summary_model import RunSummary
from v2a.bundle import load_bundle
from v2a.errors import ConfigError
from v2a.files import write_text
from v2a.terminal import Bar

FILMS = 6


@click.command()
@click.option(
    "--episodes", default=30, show_default=True, type=click.IntRange(min=1),
    help="Number of episodes.",
)  # fmt: skip
@click.option(
    "--seed", default=0, show_default=True, type=click.IntRange(min=0),
    help="Seed of the first episode; the next ones count up.",
)  # fmt: skip
@click.option(
    "--task", "level", default="puck", show_default=True, type=click.Choice(LEVELS),
    help="Level of the task.",
)  # fmt: skip
@click.option(
    "--bundle", default=BUNDLE, type=click.Path(path_type=Path),
    help="Use this bundle instead of the demo's own.",
)  # fmt: skip
@click.option("--report", type=click.Path(path_type=Path), help="Write index.html to this folder.")
@click.option("--record", type=click.Path(path_type=Path), help="Record into this new folder.")
@click.option("--study", is_flag=True, help="Compare modes on a virtual clock instead.")
@click.option("--mode", "modes", multiple=True, help="Run only this mode of the study. Repeatable.")
@click.option(
    "--processes",
    default=2,
    show_default=True,
    type=click.IntRange(min=1),
    help="Number of processes of the study.",
)
@click.option(
    "--save", type=click.Path(path_type=Path),
    help="Write the figures to this folder, such as demo/results.",
)  # fmt: skip
@click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON object on stdout, the rest on stderr."
)
def demo(
    episodes: int,
    seed: int,
    level: Level,
    bundle: Path,
    report: Path | None,
    record: Path | None,
    study: bool,
    modes: tuple[str, ...],
    processes: int,
    save: Path | None,
    as_json: bool,
) -> None:
    """Let a trained policy drop a ring over a sliding puck with a simulated arm.

    By default this runs in real time. The simulated robot is another process, which the runtime
    drives over a serial bus.
    """
    if modes and not study:
        raise click.UsageError("--mode only applies to the study; add --study")
    seeds = range(seed, seed + episodes)
    if study:
        _study(level, seeds, modes, bundle, processes, save, as_json)
        return
    with Bar("playing", episodes) as bar:
        progress = _Progress(episodes, bar)
        session = run_episodes(
            load_bundle(bundle), level, seeds, progress, FILMS if report else 0, record
        )
    summary = _summary(session, level)
    if report is not None:
        click.echo(
            f"report: {write_report(report, json.loads(to_json(summary)), session.films)}", err=True
        )
    if save is not None:
        _save(save, session, summary, level)
    click.echo(to_json(summary) if as_json else _text(session.run, summary))


class _Progress:
    """Shows a bar on a terminal. Elsewhere it prints a line every tenth episode."""

    def __init__(self, episodes: int, bar: Bar) -> None:
        self._episodes = episodes
        self._bar = bar
        self._won = 0

    def __call__(self, done: int, result: Result) -> None:
        self._won += result.success
        self._bar.begin(f"{self._won} succeeded")
        self._bar.done()
        if not self._bar.in_place and (done % 10 == 0 or done == self._episodes):
            click.echo(f"episode {done}/{self._episodes}: {self._won} succeeded", err=True)


def _summary(session: Session, level: Level) -> dict[str, Any]:
    results = session.results
    return {
        "task": level,
        **rate([result.success for result in results]),
        **session.run.model_dump(mode="json"),
        "system1_period_s": session.config.system1.period_s,
        "system2_period_s": session.config.system2.period_s,
        "cpu_model": _cpu_model(),
        "episodes": [{"seed": r.seed, "success": r.success, "knocked": r.knocked} for r in results],
    }


def _text(run: RunSummary, summary: dict[str, Any]) -> str:
    low, high = summary["ci95"]
    head = (
        f"{summary['task']}: {100 * summary['success_rate']:.1f} % of {summary['n']} episodes "
        f"succeeded (95 % interval {100 * low:.1f} to {100 * high:.1f} %)"
    )
    return f"{as_text(run)}\n{head}"


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.lower().startswith(("model name", "hardware")):
            return line.split(":", 1)[1].strip()
    return "unknown CPU"


def _study(
    level: Level,
    seeds: range,
    modes: tuple[str, ...],
    bundle: Path,
    processes: int,
    save: Path | None,
    as_json: bool,
) -> None:
    from demo.study import BLOCK, MODES, available_modes, study  # here: slow to import

    if unknown := set(modes) - set(MODES):
        raise click.BadParameter(f"no mode {', '.join(sorted(unknown))}; use {', '.join(MODES)}")
    if any(MODES[mode].torch for mode in modes) and not CHECKPOINT.exists():
        raise ConfigError(
            f"{CHECKPOINT}: the training checkpoint is not in the installed package; "
            "run this mode in a checkout of the repository"
        )
    load_bundle(bundle)  # a bad bundle gives one line here, but a traceback in a child process

    modes = modes or tuple(available_modes())
    with Bar("studying", len(modes) * math.ceil(len(seeds) / BLOCK)) as bar:

        def progress(mode: str, done: int) -> None:
            bar.begin(mode)
            bar.done(None if bar.in_place else f"{mode}: {done}/{len(seeds)}", err=True)

        rows = study(level, seeds, modes, progress, bundle, processes)
    found = {
        "task": level,
        "n": len(seeds),
        "first_seed": seeds.start,
        "cpu_model": _cpu_model(),
        "versions": versions(),
        "modes": rows,
    }
    if save is not None:
        save.mkdir(parents=True, exist_ok=True)
        write_text(save / f"study_{level}.json", json.dumps(found, indent=1) + "\n")
    click.echo(json.dumps(found) if as_json else "\n".join(_study_lines(rows)))


def _study_lines(rows: dict[str, Any]) -> list[str]:
    return [
        f"{mode:<13}{100 * row['success_rate']:6.1f} %  "
        f"({100 * row['ci95'][0]:.1f} to {100 * row['ci95'][1]:.1f})  {row['what']}"
        for mode, row in rows.items()
    ]


def _save(folder: Path, session: Session, summary: dict[str, Any], level: Level) -> None:
    """Save this run's figures for the report, and its delays for the study's virtual clock."""
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / f"realtime_{level}.json", to_json(summary, indent=1) + "\n")
    camera = np.median(session.delays.camera)
    taken = {
        "camera": np.array(session.delays.camera),
        "system1": np.array(session.delays.system1) - camera,
        "system2": np.array(session.delays.system2) - camera,
    }
    grid = np.linspace(0, 1, 101)
    quantiles = {
        name: [int(v) for v in np.quantile(np.maximum(ns, 0), grid)] for name, ns in taken.items()
    }
    found = {"cpu_model": _cpu_model(), "quantiles_ns": quantiles}
    write_text(folder / "delays.json", json.dumps(found, indent=1) + "\n")
