"""`v2a robot clear-stop`: releases an emergency stop, so that the robot may be armed again."""

from __future__ import annotations

from pathlib import Path

import click
from pydantic import BaseModel

from hw_drivers.robot.config import RobotConfig
from runtime.safety.stop_latch import FOLDER_KEY, latched, release
from v2a.config import load_yaml
from v2a.errors import V2AError


class _File(BaseModel):
    """The part of robot.yaml that names the robot. The rest is left unchecked."""

    robot: RobotConfig


@click.command()
@click.argument("robot_yaml", metavar="ROBOT.YAML", type=click.Path(path_type=Path))
def clear_stop(robot_yaml: Path) -> None:
    """Release the emergency stop of ROBOT.YAML's robot.

    Nothing moves. Look at the robot first: the next `v2a run --arm` arms it.
    """
    name = load_yaml(robot_yaml, _File).robot.name
    stop = latched(name)
    if stop is None:
        click.echo(f"{name}: no stop is in force")
        return
    try:
        release(name)
    except OSError as error:
        raise V2AError(
            f"{error.filename}: {error.strerror}; the stop stays in force; check the permissions "
            f"there, or what {FOLDER_KEY} names"
        ) from error
    click.echo(f"{name}: released: {stop}")
