"""`v2a record`: shows what a recording holds, and exports it to other formats."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import click

from runtime.recording.info import RecordingInfo, look_into
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording

# --to -> the module whose `export(recordings, folder)` writes it
FORMATS: Final = {
    "lerobot": "runtime.convert.lerobot",
    "rrd": "runtime.convert.rerun",
    "perfetto": "runtime.convert.perfetto",
}

# dry_run -> what ran; an older v2a did not say
ROBOT: Final = {
    True: "a virtual robot: a dry run",
    False: "a real robot",
    None: "a robot, real or virtual: an older v2a did not say",
}

_PATH = click.Path(path_type=Path)
_RUN = click.argument("run", type=_PATH)


@click.group()
def record() -> None:
    """Inspect or export the recordings that `v2a run` makes.

    RUN is a recording's folder, or the run.mcap in it.
    """


@record.command()
@_RUN
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def info(run: Path, as_json: bool) -> None:
    """Show what RUN holds and how it ended."""
    recording = Recording(run)
    found = look_into(recording)
    click.echo(to_json(found) if as_json else _text(found))
    recording.complain()


@record.command()
@click.argument("paths", metavar="RUN... [FOLDER]", nargs=-1, required=True, type=_PATH)
@click.option("--to", "name", type=click.Choice(list(FORMATS)), required=True, help="Format.")
@click.option("-o", "--output", type=_PATH, help="The folder. Without -o, it is the last argument.")
@click.option("--append", is_flag=True, help="lerobot: add the episodes to the data set in FOLDER.")
@click.option(
    "--fps", type=click.IntRange(1, 1000),
    help="lerobot: rows per second.  [default: the camera's measured rate]",
)  # fmt: skip
@click.option(
    "--success", metavar="WHICH",
    help="lerobot: mark episodes as successes: all, none, or epochs such as 0,2.",
)  # fmt: skip
def export(
    paths: tuple[Path, ...],
    name: str,
    output: Path | None,
    append: bool,
    fps: int | None,
    success: str | None,
) -> None:
    """Write each RUN to the new FOLDER in another format.

    \b
    For training:      v2a record export runs/arm-1 runs/arm-2 --to lerobot -o dataset
    More of it:        v2a record export runs/arm-3 --to lerobot -o dataset --append
    To look at:        v2a record export runs/arm-1 --to rrd -o folder

    \b
    Exit codes: 0 written; 1 a package is missing, 2 bad input or no room, 9 a recording is
    damaged: the readable rest is written.
    """
    *runs, folder = paths if output is None else (*paths, output)
    if not runs:
        raise click.UsageError("give a RUN and a FOLDER")
    options = {"append": append, "fps": fps, "success": success}
    asked = {key: value for key, value in options.items() if value}
    if name != "lerobot" and (asked or len(runs) > 1):
        what = f"--{next(iter(asked))}" if asked else "more than one RUN"
        raise click.UsageError(f"{what} is for --to lerobot only")
    recordings = [Recording(run) for run in runs]
    if asked:
        lerobot = importlib.import_module(FORMATS["lerobot"])
        lerobot.export(recordings, folder, lerobot.Options(**asked))
    else:
        importlib.import_module(FORMATS[name]).export(recordings, folder)
    for recording in recordings:
        recording.complain()


def _text(found: RecordingInfo) -> str:
    what = f"{found.robot}, {found.policy}, {found.seconds:.1f} s"
    how = "ended" if found.ended else "did not end: it was killed, or still goes on"
    counts = [f"{topic:<12}{n:>8}" for topic, n in found.messages.items()]
    damaged = [f"damaged in {found.damaged} places"] if found.damaged else []
    return "\n".join(
        [
            f"{found.path}: {what}, {how}",
            f"started: {found.started_utc or 'not known'}, with {ROBOT[found.dry_run]}",
            f"instruction: {found.instruction}",
            *damaged,
            *counts,
            ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        ]
    )
