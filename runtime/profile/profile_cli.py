"""`v2a profile`: measure a bundle, or make the profile of a recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click
from click.core import ParameterSource

from runtime.profile.budgets import Budgets, load_budgets
from runtime.profile.files import claim_folder, new_folder, write_profile
from runtime.profile.from_recording import profile_of_recording
from runtime.profile.live import measure
from runtime.profile.options import MEASURING, PATH, measuring_options
from runtime.profile.subject import choose_subject
from runtime.profile.text import profile_as_text
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from v2a.bundle import load_bundle
from v2a.errors import OverBudget


@click.command()
@click.argument("bundle", required=False, type=PATH)
@click.option(
    "--run", "recording", type=PATH, metavar="RECORDING",
    help="Make the profile of this recording instead of measuring a BUNDLE.",
)  # fmt: skip
@measuring_options
@click.option(
    "--budgets", "budgets_yaml", type=PATH, metavar="YAML",
    help="Limits for stages and ages; exit code 8 if one is broken.",
)  # fmt: skip
@click.option(
    "-o", "--output", type=PATH, metavar="FOLDER",
    help="Where to write.  [default: runs/profile-1, -2, ...; with --run, beside the recording]",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print the profile as JSON on stdout.")
def profile(
    bundle: Path | None,
    recording: Path | None,
    robot_yaml: Path | None,
    camera: str | None,
    seconds: float,
    engine: str,
    threads: int,
    budgets_yaml: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Measure what each stage of BUNDLE costs, how old its data is, and what is late.

    Writes report.html, profile.json and trace.perfetto-trace into a folder, beside the recording.
    A real robot does not move: it is read with its torque off. Without --robot, a virtual robot
    moves.

    \b
    Without a robot:   v2a profile BUNDLE --camera file:clip.mp4
    On the robot:      v2a profile BUNDLE --robot robot.yaml --budgets budgets.yaml
    After any run:     v2a profile --run runs/arm-1

    \b
    Exit codes: 0 measured, 8 a budget of --budgets is broken, 2 bad input, 3 bad bundle,
    4 engine, 5 camera, 6 bus, 7 safety, 1 a Python package is missing, 9 the recording is damaged,
    and its readable rest is profiled.
    """
    if (bundle is None) == (recording is None):
        raise click.UsageError("give either a BUNDLE or --run RECORDING")
    if recording is not None:
        _refuse_measuring_options()
    recorded = None
    if recording is not None:
        run = recording
        folder = output or (run if run.is_dir() else run.parent)
        recorded = Recording(run)
        budgets = _budgets(budgets_yaml, recorded.header.stages)
        found = profile_of_recording(recorded, budgets)
    else:
        assert bundle is not None
        subject = choose_subject(load_bundle(bundle), robot_yaml, camera, engine, threads)
        budgets = _budgets(budgets_yaml, subject.bundle.manifest.stages)
        run = folder = claim_folder(output or new_folder("profile"))
        found = measure(subject, seconds, folder, budgets)
    write_profile(found, recorded or Recording(run), folder)
    shown = to_json(found.model_dump(exclude={"samples"}), indent=1)
    click.echo(shown if as_json else profile_as_text(found))
    click.echo(f"written to {folder}: report.html, profile.json, trace.perfetto-trace", err=True)
    if recorded is not None:
        recorded.complain()
    if budgets is not None and not found.budgets.ok:
        raise OverBudget(found.budgets.verdict)


def _budgets(path: Path | None, stages: Sequence[str]) -> Budgets | None:
    return None if path is None else load_budgets(path, stages)


def _refuse_measuring_options() -> None:
    context = click.get_current_context()
    for name, option in MEASURING.items():
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            raise click.UsageError(
                f"{option} says how to measure, and --run measures nothing; leave it out"
            )
