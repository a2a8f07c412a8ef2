"""`v2a record`: shows what a recording holds, and exports it to other formats."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Final

import click

from runtime.recording.info import RecordingInfo, look_into
from runtime.recording.messages import to_json
from runtime.recording.reader import Recording

# --to -> the module whose `export(recording, folder)` writes it
FORMATS: Final = {"lerobot": "runtime.convert.lerobot", "rrd": "runtime.convert.rerun"}

_RUN = click.argument("run", type=click.Path(path_type=Path))


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
@_RUN
@click.option("--to", "name", type=click.Choice(list(FORMATS)), required=True, help="Format.")
@click.argument("folder", type=click.Path(path_type=Path))
def export(run: Path, name: str, folder: Path) -> None:
    """Write RUN to the new FOLDER in another format."""
    importlib.import_module(FORMATS[name]).export(Recording(run), folder)


def _text(found: RecordingInfo) -> str:
    what = f"{found.robot}, {found.policy}, {found.seconds:.1f} s"
    how = "ended" if found.ended else "did not end: it was killed, or still goes on"
    counts = [f"{topic:<12}{n:>8}" for topic, n in found.messages.items()]
    robot = "a virtual robot: a dry run" if found.dry_run else "a real robot"
    damaged = [f"damaged in {found.damaged} places"] if found.damaged else []
    return "\n".join(
        [
            f"{found.path}: {what}, {how}",
            f"started: {found.started_utc or 'not known'}, with {robot}",
            f"instruction: {found.instruction}",
            *damaged,
            *counts,
            ", ".join(f"{name} {version}" for name, version in found.versions.items()),
        ]
    )
