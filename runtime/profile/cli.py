"""`v2a profile`: measure a bundle, look at a run, compare two profiles, sweep options."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import click

from runtime.config.robot_yaml import RunConfig
from runtime.control.notes import RobotKind
from runtime.engines import BACKENDS, load
from runtime.engines.base import EngineFactory
from runtime.policy.graphs import SUPPLIED
from runtime.profile.budgets import Budgets, load_budgets
from runtime.profile.compare import as_text as comparison_text
from runtime.profile.compare import compare, read_profile
from runtime.profile.live import (
    Profile,
    Subject,
    measure,
    of_recording,
    progress,
    virtual_config,
)
from runtime.profile.paired import as_text as in_turn_text
from runtime.profile.paired import compare_engines
from runtime.profile.sweep import as_text as sweep_text
from runtime.profile.sweep import sweep
from runtime.profile.text import as_text
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording
from v2a.bundle import Bundle, Manifest, load_bundle
from v2a.clock import MonotonicClock
from v2a.config import load_yaml
from v2a.errors import ConfigError, OverBudget

_PATH = click.Path(path_type=Path)


@click.command()
@click.argument("words", metavar="[BUNDLE [OTHER]]", nargs=-1)
@click.option("--robot", "robot_yaml", type=_PATH, help="robot.yaml; left out, a virtual robot.")
@click.option(
    "--camera", metavar="SOURCE", help="file:clip.mp4, ...; left out, robot.yaml's or noise."
)
@click.option("--seconds", type=click.FloatRange(min=0.5), default=20.0, show_default=True)
@click.option(
    "--engine", type=click.Choice(list(BACKENDS)), default="ort", show_default=True,
    help="What computes; trt and rtx want `v2a build` first.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="Of ort.")
@click.option(
    "--run", "run_path", type=_PATH, help="Instead of a bundle: a recording that is there."
)
@click.option(
    "--against", nargs=2, type=_PATH, metavar="A B",
    help="Compare two profiles: is B better or worse?",
)  # fmt: skip
@click.option(
    "--sweep", "axes", multiple=True, metavar="NAME=V,V ...",
    help="Measure with each of these options, e.g. threads=1,2 rate_hz=50,100.",
)  # fmt: skip
@click.option("--budgets", "budgets_yaml", type=_PATH, help="Limits; a broken one exits with 8.")
@click.option("-o", "--output", type=_PATH, help="Folder.  [default: runs/profile-1, -2, ...]")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON on stdout.")
def profile(
    words: tuple[str, ...],
    robot_yaml: Path | None,
    camera: str | None,
    seconds: float,
    engine: str,
    threads: int,
    run_path: Path | None,
    against: tuple[Path, Path] | None,
    axes: tuple[str, ...],
    budgets_yaml: Path | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Show which stage of BUNDLE costs what, how old the data was, and what came too late.

    Nothing moves: a robot is read, with its torque off; without one, a virtual robot follows.

    \b
    A bundle:          v2a profile BUNDLE --camera file:clip.mp4
    On the robot:      v2a profile BUNDLE --robot robot.yaml --budgets budgets.yaml
    After any run:     v2a profile --run runs/arm-1
    Better or worse?   v2a profile --against A/profile.json B/profile.json
    Quicker engines?   v2a profile BUNDLE OTHER
    Options:           v2a profile BUNDLE --sweep threads=1,2 rate_hz=50,100
    """
    if against:
        before, after = map(read_profile, against)
        found = compare(before, after)
        click.echo(to_json(found, indent=1) if as_json else comparison_text(found))
        return
    budgets = None if budgets_yaml is None else load_budgets(budgets_yaml)
    if run_path:
        folder = output or (run_path if run_path.is_dir() else run_path.parent)
        _show(_kept(of_recording(run_path, budgets), run_path, folder), folder, as_json, budgets)
        return
    bundles, axes = _bundles_and_axes(words, axes)
    loaded, folder = load_bundle(bundles[0]), output or _new_folder()
    if len(bundles) == 2:
        if robot_yaml or camera or axes or budgets or output:
            raise click.UsageError(
                "two bundles are compared engine by engine: of the options only --engine, "
                "--threads and --json have a meaning there"
            )
        found = _in_turn(
            loaded, load_bundle(bundles[1]), partial(load, backend=engine, threads=threads)
        )
        click.echo(to_json(found, indent=1) if as_json else in_turn_text(found))
        return
    config = _config(loaded.manifest, robot_yaml, camera)
    robot: RobotKind = "real" if robot_yaml else "virtual"
    subject = Subject(loaded, config, robot, engine, threads)
    once = partial(_measured_and_kept, seconds=seconds, budgets=budgets)
    if axes:
        rows = sweep(subject, axes, once, folder)
        (folder / "sweep.json").write_text(to_json(rows, indent=1) + "\n", encoding="utf-8")
        click.echo(to_json(rows, indent=1) if as_json else sweep_text(rows))
        return
    _show(once(subject, folder), folder, as_json, budgets)


def _bundles_and_axes(
    words: Sequence[str], axes: tuple[str, ...]
) -> tuple[list[Path], tuple[str, ...]]:
    """`--sweep a=1,2 b=3,4` takes one word; the others come as arguments beside the bundle."""
    more = tuple(word for word in words if axes and "=" in word)
    bundles = [Path(word) for word in words if word not in more]
    if len(bundles) not in (1, 2):
        raise click.UsageError("name a BUNDLE or two, or give --run RUN or --against A B")
    return bundles, (*axes, *more)


def _in_turn(before: Bundle, after: Bundle, engines: EngineFactory) -> dict[str, Any]:
    with progress("engines of both in turn", len(SUPPLIED)) as step:
        return compare_engines(before, after, engines, MonotonicClock(), lambda graph: step(1))


def _config(manifest: Manifest, robot_yaml: Path | None, camera: str | None) -> RunConfig:
    if robot_yaml is None:
        return virtual_config(manifest, camera or "synthetic:")
    config = load_yaml(robot_yaml, RunConfig)
    if camera is None:
        return config
    source = config.camera.model_copy(update={"source": camera})
    return config.model_copy(update={"camera": source})


def _measured_and_kept(
    subject: Subject, folder: Path, seconds: float, budgets: Budgets | None
) -> Profile:
    return _kept(measure(subject, seconds, _fresh(folder), budgets), folder, folder)


def _kept(found: Profile, run: Path, folder: Path) -> Profile:
    """Write profile.json, report.html and the trace of the recording `run` into `folder`."""
    from runtime.convert.perfetto import write_trace  # here: only this needs perfetto's package
    from runtime.report import write_report

    recording = Recording(run)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        text = to_json(found) + "\n"
        (folder / "profile.json").write_text(text, encoding="utf-8")
        write_report(found, recording, folder / "report.html")
        write_trace(recording, folder / "trace.perfetto-trace")
    except OSError as error:
        raise ConfigError(f"{folder}: {error.strerror}; name another folder with -o") from error
    return found


def _show(found: Profile, folder: Path, as_json: bool, budgets: Budgets | None) -> None:
    """The verdict is also the exit code, if somebody wrote the budgets down."""
    shown = {name: value for name, value in found.items() if name != "samples"}
    click.echo(to_json(shown, indent=1) if as_json else as_text(found))
    click.echo(f"written to {folder}: report.html, profile.json, trace.perfetto-trace", err=True)
    if budgets is not None and not found["budgets"]["ok"]:
        raise OverBudget(found["budgets"]["verdict"])


def _fresh(folder: Path) -> Path:
    """An empty folder is as good as a new one, which the recorder makes."""
    if folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
    return folder


def _new_folder() -> Path:
    n = 1
    while (folder := Path("runs") / f"profile-{n}").exists():
        n += 1
    return folder
