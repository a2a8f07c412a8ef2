"""`v2a sweep`: profile a bundle with each combination of options."""

from __future__ import annotations

from pathlib import Path

import click

from runtime.profile.budgets import load_budgets
from runtime.profile.files import new_folder, write_profile
from runtime.profile.live import measure
from runtime.profile.options import PATH, measuring_options
from runtime.profile.subject import Subject, choose_subject
from runtime.profile.sweep import run_sweep, sweep_as_text
from runtime.profile_model import Profile
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from v2a.bundle import load_bundle
from v2a.files import write_text


@click.command()
@click.argument("bundle", type=PATH)
@click.argument("axes", metavar="KEY=A,B ...", nargs=-1, required=True)
@measuring_options
@click.option(
    "--budgets", "budgets_yaml", type=PATH, metavar="YAML",
    help="Limits for stages and ages; each profile says which are broken.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=PATH, metavar="FOLDER",
    help="Where to write.  [default: runs/sweep-1, -2, ...]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the table as JSON on stdout.")
def sweep(
    bundle: Path,
    axes: tuple[str, ...],
    robot_yaml: Path | None,
    camera: str | None,
    seconds: float,
    engine: str,
    threads: int,
    budgets_yaml: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Profile BUNDLE with every combination of options, and compare each with the first.

    Writes one profile for each combination into a folder, and sweep.json with the table. The keys
    are engine, threads, rate_hz (control), fps (camera), system1.period_s and system2.period_s.

    \b
    Two axes, four runs:   v2a sweep BUNDLE threads=1,2 rate_hz=50,100
    Quick, with a video:   v2a sweep BUNDLE threads=1,2 --seconds 5 --camera file:clip.mp4

    \b
    Exit codes: 0 measured, also over budget; 2 bad input, 3 bad bundle, 4 engine, 5 camera,
    6 bus, 7 safety, 1 a Python package is missing.
    """
    subject = choose_subject(load_bundle(bundle), robot_yaml, camera, engine, threads)
    stages = subject.bundle.manifest.stages
    budgets = None if budgets_yaml is None else load_budgets(budgets_yaml, stages)
    folder = output or new_folder("sweep")

    def measured(point: Subject, place: Path) -> Profile:
        click.echo(f"{place.name}:", err=True)
        found = measure(point, seconds, place, budgets)
        write_profile(found, Recording(place), place)
        return found

    table = run_sweep(subject, axes, measured, folder)
    text = to_json(table.model_dump(), indent=1)
    click.echo(text if as_json else sweep_as_text(table))
    write_text(folder / "sweep.json", text + "\n")
    click.echo(f"written to {folder}: sweep.json, and a profile for each row", err=True)
