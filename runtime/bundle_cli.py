"""`v2a bundle example`, beside the commands of `v2a/bundle_cli.py` that need no robot."""

from __future__ import annotations

from pathlib import Path

import click

from v2a.bundle_cli import bundle
from v2a.config import load_yaml

__all__ = ["bundle"]


@bundle.command()
@click.argument("robot", metavar="ROBOT.yaml", type=click.Path(path_type=Path))
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), required=True, help="A new folder."
)
def example(robot: Path, output: Path) -> None:
    """Write a bundle with random weights for the robot that ROBOT.yaml describes.

    It has learned nothing. It moves each joint slowly to a point within 3 degrees of the
    middle of its range. The picture chooses the point: with a still picture the joint stays there.

    \b
    v2a bundle example ROBOT.yaml -o example
    v2a run ROBOT.yaml --bundle example --dry-run
    """
    from runtime.config.robot_yaml import RunConfig
    from runtime.example_bundle import write_example

    manifest = write_example(load_yaml(robot, RunConfig), output)
    click.echo(f"{output}: {manifest.description}")
    click.echo(f"try it: v2a run {robot} --bundle {output} --dry-run")
