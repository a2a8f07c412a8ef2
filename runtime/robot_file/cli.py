"""The commands of `v2a robot`. Each has a file of its own, imported when it is used."""

from __future__ import annotations

from typing import Final

import click

from v2a.cli import LazyCommand, LazyGroup

COMMANDS: Final = {
    "new": LazyCommand("runtime.robot_file.new", "new", "Write a robot.yaml for your servos."),
    "check": LazyCommand(
        "runtime.robot_file.check", "check", "Check a robot.yaml, and the robot if it is there."
    ),
    "clear-stop": LazyCommand(
        "runtime.safety.clear_stop", "clear_stop", "Release an emergency stop."
    ),
}


@click.group(cls=LazyGroup, table=COMMANDS)
def robot() -> None:
    """Write and check the file that describes a robot. Nothing moves."""
