"""The commands of `v2a robot`. Each has a file of its own, imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from v2a.cli import LazyCommand, LazyGroup

COMMANDS: Final = {
    "clear-stop": LazyCommand(
        "runtime.safety.clear_stop", "clear_stop", "Release an emergency stop."
    ),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def robot() -> None:
    """Manage the robot that a robot.yaml describes. Nothing moves."""
